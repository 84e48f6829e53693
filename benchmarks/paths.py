"""Time and peak memory of each path alone, on full-size feature maps, beside torchdistill's loss for the same thing.

    python -m benchmarks.paths --batch 32 --json paths.json

No model runs: the maps are random, in the shapes of the named pairs. ``benchmarks/README.md`` explains the columns.
"""

from __future__ import annotations

import argparse
import functools
import itertools
import json
import operator
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.profiler import ProfilerActivity, profile

from benchmarks import timing
from benchmarks.rivals import Maps, make_rival
from distill import paths
from distill.batch import Batch, Samples
from distill.taps import OUTPUT, Probe, Tap

MEBIBYTE = 2**20
PHASES = ("target", "forward", "both")
LAYOUTS = {"channels_last": torch.channels_last, "contiguous": torch.contiguous_format}
NUM_SAMPLES, NUM_CLASSES_SEEN = 50_000, 100
"""The training set of the paths that keep a memory of it: as large as CIFAR-100's."""


@dataclass(frozen=True)
class Pair:
    """The stages of a teacher and a student.

    Attributes:
        teacher: channels of the teacher's stages.
        student: channels of the student's stages.
        sizes: height and width of the stages, the same in both.
        num_classes: width of the logits.
    """

    teacher: tuple[int, ...]
    student: tuple[int, ...]
    sizes: tuple[int, ...]
    num_classes: int


PAIRS = {
    "ResNet-50 to 18, 32x32": Pair((256, 512, 1024, 2048), (64, 128, 256, 512), (32, 16, 8, 4), 100),
    "ResNet-34 to 18, 224x224": Pair((64, 128, 256, 512), (64, 128, 256, 512), (56, 28, 14, 7), 1000),
}


OF_OTHER_TASKS = ("BoxOffsets", "FGD", "IFVD", "LD", "RegionLogits")
"""Paths that classifiers have no use for; they are not measured here."""


class PathBench:
    """One path between random maps: its target, its forward pass, and forward and backward, ready to be run again."""

    def __init__(self, name: str, pair: Pair, batch: int, device: torch.device, layout: str) -> None:
        torch.manual_seed(0)
        self._path: paths.Path = getattr(paths, name)()
        classifier = nn.Linear(pair.teacher[-1], pair.num_classes)
        self._path.connect(_probe(pair.student, pair, None), _probe(pair.teacher, pair, classifier))
        if self._path.needs_samples:
            numbers = torch.arange(NUM_SAMPLES)
            self._path.meet(Samples(numbers, numbers % NUM_CLASSES_SEEN))
        self._path.to(device)
        self._path.advance(0.5)  # the phase in which the student learns: the most of the training
        taps = {each.student for each in self._path.pairs}, {each.teacher for each in self._path.pairs}
        self._student = _maps(pair.student, pair, batch, device, layout, taps[0])
        self._teacher = _maps(pair.teacher, pair, batch, device, layout, taps[1])
        for value in self._student.values():
            value.requires_grad_()
        numbers = torch.arange(batch, device=device)
        self._batch = Batch(numbers, numbers % NUM_CLASSES_SEEN, numbers)
        with torch.no_grad():
            self._target = self._path.target(self._teacher)
        self.target_bytes = sum(value[0].numel() * value.element_size() for value in self._target.values())
        self._loss: Tensor | None = None

    def target(self) -> None:
        """Compute the target."""
        with torch.no_grad():
            self._path.target(self._teacher)

    def forward(self) -> None:
        """Compute the loss with its graph."""
        losses = self._path(self._student, self._target, self._batch)
        self._loss = functools.reduce(operator.add, losses.values())

    def both(self) -> None:
        """Compute the loss, then the gradients of maps and adapters."""
        self._path.zero_grad()
        for value in self._student.values():
            value.grad = None
        self.forward()
        assert self._loss is not None
        self._loss.backward()  # type: ignore[no-untyped-call]
        self._loss = None


def _probe(channels: Sequence[int], pair: Pair, classifier: nn.Linear | None) -> Probe:
    stages = tuple(
        Tap(f"stage{number}", width, size, size, stride=2.0**number, layout="nchw")
        for number, (width, size) in enumerate(zip(channels, pair.sizes, strict=True))
    )
    output = Tap(OUTPUT, pair.num_classes, 1, 1, stride=2.0 ** len(stages), layout="vector")
    taps = {tap.name: tap for tap in (*stages, output)}
    return Probe(taps=taps, stages=stages, last=stages[-1], output_shape=(pair.num_classes,), classifier=classifier)


def _maps(
    channels: Sequence[int], pair: Pair, batch: int, device: torch.device, layout: str, taps: set[str]
) -> dict[str, Tensor]:
    maps = {OUTPUT: torch.randn(batch, pair.num_classes, device=device)} if OUTPUT in taps else {}
    for number, (width, size) in enumerate(zip(channels, pair.sizes, strict=True)):
        if f"stage{number}" in taps:
            values = torch.randn(batch, width, size, size, device=device).relu_()
            maps[f"stage{number}"] = values.contiguous(memory_format=LAYOUTS[layout])
    return maps


class RivalBench:
    """torchdistill's loss for the same thing, on the same maps, with its gradients."""

    def __init__(self, name: str, pair: Pair, batch: int, device: torch.device, layout: str) -> None:
        torch.manual_seed(0)
        stages = [f"stage{number}" for number in range(len(pair.sizes))]
        student, teacher = (
            {tap or "out": value for tap, value in _maps(width, pair, batch, device, layout, {*stages, OUTPUT}).items()}
            for width in (pair.student, pair.teacher)
        )
        self._leaves = [value.requires_grad_() for value in student.values()]
        self.rival = make_rival(name, Maps(student, teacher, stages))

    def both(self) -> None:
        """Compute the loss, the teacher's side included, then the gradients of maps and modules."""
        assert self.rival is not None
        for value in (*self._leaves, *self.rival.modules.parameters()):
            value.grad = None
        self.rival.loss().backward()  # type: ignore[no-untyped-call]


def peak_bytes(run: Callable[[], object], device: torch.device) -> int:
    """Return by how much a run raises the memory that torch holds, at its highest."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        run()
        return torch.cuda.max_memory_allocated(device) - before
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as recorded:
        run()
    assert recorded.profiler is not None
    events = [event for event in recorded.profiler.kineto_results.events() if event.name() == "[memory]"]
    held = itertools.accumulate(event.nbytes() for event in sorted(events, key=lambda event: event.start_ns()))
    return max(held, default=0)


def measure(pair: Pair, options: argparse.Namespace) -> dict[str, dict[str, Any]]:
    """Time all paths of a pair, interleaved; return one row a path."""
    device = torch.device(options.device)
    benches = {name: PathBench(name, pair, options.batch, device, options.layout) for name in options.paths}
    runs = {f"{name} {phase}": getattr(bench, phase) for name, bench in benches.items() for phase in PHASES}
    rivals = _rivals(pair, options, device)
    runs |= {f"{name} torchdistill": bench.both for name, bench in rivals.items()}
    seconds = timing.interleave(runs, rounds=options.rounds, warmup=1, device=device)
    rows = {}
    for name, bench in benches.items():
        medians = {phase: 1e3 * statistics.median(seconds[f"{name} {phase}"]) for phase in PHASES}
        backward = [
            1e3 * (both - forward)
            for both, forward in zip(seconds[f"{name} both"], seconds[f"{name} forward"], strict=True)
        ]
        rows[name] = {
            "target_ms": medians["target"],
            "forward_ms": medians["forward"],
            "backward_ms": statistics.median(backward),
            "both_sd_ms": 1e3 * statistics.stdev(seconds[f"{name} both"]) if options.rounds > 1 else 0.0,
            "n": options.rounds,
            "target_peak_mib": peak_bytes(bench.target, device) / MEBIBYTE,
            "step_peak_mib": peak_bytes(bench.both, device) / MEBIBYTE,
            "target_bytes": bench.target_bytes,
        }
        if name in rivals:
            ours = [
                target + both for target, both in zip(seconds[f"{name} target"], seconds[f"{name} both"], strict=True)
            ]
            ratio = timing.compare(seconds[f"{name} torchdistill"], ours)
            rows[name] |= {"torchdistill": ratio.median, "torchdistill_sd": ratio.sd}
    return rows


def _rivals(pair: Pair, options: argparse.Namespace, device: torch.device) -> dict[str, RivalBench]:
    """Return torchdistill's losses that there are; none, with the reason, where it is not installed."""
    try:
        found = {name: RivalBench(name, pair, options.batch, device, options.layout) for name in options.paths}
    except ImportError as error:
        print(f"torchdistill is left out: {error} (pip install --no-deps torchdistill==1.1.5)")
        return {}
    return {name: bench for name, bench in found.items() if bench.rival is not None}


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, print, and save where asked to."""
    options = _parse(arguments)
    if options.threads:
        torch.set_num_threads(options.threads)
    setting = {"batch": options.batch, "layout": options.layout, **timing.machine(torch.device(options.device))}
    print(", ".join(f"{key} {value}" for key, value in setting.items()))
    results = {}
    for label in options.pairs:
        results[label] = measure(PAIRS[label], options)
        print("\n".join(["", label, *report(results[label])]))
    if options.json:
        options.json.parent.mkdir(parents=True, exist_ok=True)
        options.json.write_text(json.dumps({"setting": setting, "pairs": results}, indent=1) + "\n", encoding="utf-8")


COLUMNS = {
    "target_ms": ("target ms", 1),
    "forward_ms": ("forward ms", 1),
    "backward_ms": ("backward ms", 1),
    "both_sd_ms": ("sd ms", 1),
    "target_peak_mib": ("target MiB", 1),
    "step_peak_mib": ("step MiB", 1),
    "target_bytes": ("target B", 0),
    "torchdistill": ("torchdistill / ours", 2),
    "torchdistill_sd": ("sd", 2),
}
"""Header and decimals of each column."""


def report(rows: dict[str, dict[str, Any]]) -> list[str]:
    """Return the table of a pair's paths."""
    lines = [f"{'':22}" + "".join(f"{title:>{max(len(title) + 2, 11)}}" for title, _ in COLUMNS.values())]
    for name, row in rows.items():
        cells = [
            f"{row[key]:>{max(len(title) + 2, 11)}.{places}f}" if key in row else " " * max(len(title) + 2, 11)
            for key, (title, places) in COLUMNS.items()
        ]
        lines.append(f"{name:22}{''.join(cells)}".rstrip())
    return lines


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.paths", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--batch", type=int, default=32, help="samples of a step")
    parser.add_argument("--threads", type=int, default=0, help="of torch; 0: as torch chooses")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--layout", choices=list(LAYOUTS), default="channels_last", help="of the maps in memory")
    parser.add_argument("--pairs", nargs="+", choices=list(PAIRS), default=list(PAIRS))
    every = sorted(set(paths.__all__) - set(OF_OTHER_TASKS), key=str.lower)
    parser.add_argument("--paths", nargs="+", choices=every, default=every)
    parser.add_argument("--rounds", type=int, default=5, help="interleaved rounds")
    parser.add_argument("--json", type=Path, help="where to save the rows")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    main()
