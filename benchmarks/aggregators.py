"""What aggregators, modifiers and looks at gradients cost: time and memory of a training step over those of Equal's.

    python -m benchmarks.aggregators --json aggregators.json

The steps are the Trainer's own, on the paper's four paths. ``benchmarks/README.md`` explains the columns.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from benchmarks import timing
from benchmarks.aggregator_scene import Scene, Training
from benchmarks.aggregator_variants import Variant, make_variants
from benchmarks.paths import MEBIBYTE
from benchmarks.variants import Step
from benchmarks.workbench import PAIRS, Workbench
from distill.aggregators import Equal

NEVER = 10**9
"""Steps between two looks of what is not to look again after the first step."""
BLOCK = 6
"""How many variants take their turns before Equal has another one."""


class AggregatorBench:
    """All variants on a pair of models, each with Equal on the same paths near by.

    Args:
        bench: models and data.
        variants: by name.
        live: whether the teacher runs along.
        steps: how many make one timed run.
    """

    def __init__(self, bench: Workbench, variants: Mapping[str, Variant], *, live: bool, steps: int) -> None:
        self._bench = bench
        self._variants = variants
        self._live = live
        self._steps = steps
        self._trainings: dict[str, Training] = {}
        self._equal: dict[str, str] = {}  # by variant: the name of Equal's turn near by
        self._runs: dict[str, Callable[[], object]] = {}
        self.left_out: list[str] = []
        for paths in dict.fromkeys(variant.paths for variant in variants.values()):
            self._prepare(paths)

    def _prepare(self, paths: tuple[str, ...]) -> None:
        """Make the trainings on a path set."""
        scene = Scene(self._bench, paths, live=self._live)
        if not self._live:
            self._add(_teacher(paths), scene.ask)
        equal = scene.training(Equal())
        names = [name for name, variant in self._variants.items() if variant.paths == paths]
        for start in range(0, len(names), BLOCK):
            turn = f"Equal on {'+'.join(paths)}, turn {start // BLOCK}"
            self._trainings[turn] = equal
            self._add(turn, equal.step)
            for name in names[start : start + BLOCK]:
                self._equal[name] = turn
                self._make(name, scene)

    def _make(self, name: str, scene: Scene) -> None:
        variant = self._variants[name]
        try:
            looking = scene.training(variant.make(1), variant.diagnose)
            resting = scene.training(variant.make(NEVER)) if variant.every > 1 and variant.diagnose is None else None
        except ValueError as error:
            if not isinstance(error.__cause__, ImportError):
                raise
            self.left_out.append(f"{name} is left out: {error}")
            return
        self._trainings[name] = looking
        self._add(name, looking.step)
        if resting is not None:
            resting.step()  # the first step, in which it looks
            self._add(_resting(name), resting.step)

    def _add(self, name: str, step: Step) -> None:
        def run() -> None:
            for _ in range(self._steps):
                step()

        self._runs[name] = run

    def measure(self, rounds: int, warmup: int, clock: Callable[[], float]) -> dict[str, dict[str, Any]]:
        """Return a row a variant."""
        seconds = timing.interleave(self._runs, rounds=rounds, warmup=warmup, device=self._bench.device, clock=clock)
        peaks = {name: training.peak() for name, training in self._trainings.items()}
        return {name: self._row(name, seconds, peaks) for name in self._variants if name in self._trainings}

    def _row(self, name: str, seconds: timing.Seconds, peaks: Mapping[str, int]) -> dict[str, Any]:
        every, turn = self._variants[name].every, self._equal[name]
        looking, equal = seconds[name], seconds[turn]
        resting = seconds.get(_resting(name), equal)  # between two looks of a diagnosis a step is Equal's
        mean = [(look + (every - 1) * rest) / every for look, rest in zip(looking, resting, strict=True)]
        row: dict[str, Any] = {"every": every, "ms": 1e3 * statistics.median(mean) / self._steps}
        if self._live:
            row["live"] = asdict(timing.compare(mean, equal))
        else:
            teacher = seconds[_teacher(self._variants[name].paths)]
            row["step"] = asdict(timing.compare(mean, equal))
            row["live"] = asdict(timing.compare(timing.total(mean, teacher), timing.total(equal, teacher)))
        if every > 1:
            row["look"] = asdict(timing.compare(looking, equal))
        return row | {"peak_mib": peaks[name] / MEBIBYTE, "memory": peaks[name] / peaks[turn]}


def _teacher(paths: Sequence[str]) -> str:
    return f"teacher for {'+'.join(paths)}"


def _resting(name: str) -> str:
    return f"{name}, between two looks"


COLUMNS = {"step": "step / Equal", "live": "with the teacher", "look": "step with a look"}
"""Header of each ratio."""


def report(rows: Mapping[str, dict[str, Any]]) -> list[str]:
    """Return the table of a pair's variants."""
    lines = [f"{'':48}{'ms':>8}" + "".join(f"{title:>19}" for title in COLUMNS.values()) + f"{'MiB':>9}{'/ Equal':>9}"]
    for name, row in rows.items():
        cells = [f"{row[key]['median']:.3f} +- {row[key]['sd']:.3f}" if key in row else "" for key in COLUMNS]
        memory = f"{row['peak_mib']:9.1f}{row['memory']:9.2f}"
        lines.append(f"{name:48}{row['ms']:8.1f}" + "".join(f"{cell:>19}" for cell in cells) + memory)
    return lines


def check_setting(file: Path, label: str, setting: Mapping[str, Any]) -> None:
    """See that rows of this setting can join those under a label of a file, if there are any.

    Raises:
        ValueError: those were measured in another setting; the load of the machine is none of it.
    """
    present = _runs(file).get(label, {}).get("setting", setting)
    keys = [key for key in {**present, **setting} if key != "load" and present.get(key) != setting.get(key)]
    if keys:
        shown = ", ".join(f"{key} {present.get(key)} there, {setting.get(key)} here" for key in keys)
        raise ValueError(f"--json: {file} has {label!r} in another setting ({shown}); name another file")


def save(file: Path, label: str, run: Mapping[str, Any]) -> None:
    """Add a run to those in a file; beside rows of the same label it adds its own, in place of those of their name.

    Raises:
        ValueError: these were measured in another setting.
    """
    check_setting(file, label, run["setting"])
    runs = _runs(file)
    present = runs.get(label, run)
    merged = {**present, "variants": {**present["variants"], **run["variants"]}}
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps({"runs": runs | {label: merged}}, indent=1) + "\n", encoding="utf-8")


def _runs(file: Path) -> dict[str, Any]:
    runs: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))["runs"] if file.exists() else {}
    return runs


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, print, and save where asked to."""
    options = _parse(arguments)
    if options.threads:
        torch.set_num_threads(options.threads)
    device = torch.device(options.device)
    for pair in options.pair:
        workbench = Workbench(PAIRS[pair], options.batch, device, options.precision)
        with tempfile.TemporaryDirectory(prefix="distillery-bench-") as folder:
            variants = _chosen(make_variants(Path(folder)), options.only)
            bench = AggregatorBench(workbench, variants, live=options.live, steps=options.steps)
        clock = time.process_time if options.cpu_time else time.perf_counter
        setting = {
            "pair": pair,
            "device_type": device.type,
            "batch": options.batch,
            "precision": options.precision,
            "rounds": options.rounds,
        }
        setting |= {"steps": options.steps, "clock": clock.__name__, "live": options.live, **timing.machine(device)}
        label = ", ".join([device.type, pair, *(["live"] if options.live else [])])
        if options.json:
            try:
                check_setting(options.json, label, setting)  # before minutes of measuring
            except ValueError as error:
                raise SystemExit(str(error)) from None
        print(", ".join(f"{key} {value}" for key, value in setting.items()))
        rows = bench.measure(options.rounds, options.warmup, clock)
        print("\n".join([*report(rows), *bench.left_out]))
        if options.json:
            save(options.json, label, {"setting": setting, "variants": rows})


def _chosen(variants: Mapping[str, Variant], starts: Sequence[str]) -> dict[str, Variant]:
    """Return the variants whose name starts with one of these; all where there are none."""
    chosen = {name: each for name, each in variants.items() if not starts or name.startswith(tuple(starts))}
    if not chosen:
        raise SystemExit(f"--only: no name starts with {' or '.join(starts)}; there are: {'; '.join(variants)}")
    return chosen


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    description = (__doc__ or "").splitlines()[0]
    parser = argparse.ArgumentParser(prog="python -m benchmarks.aggregators", description=description)
    pairs = ["resnet20-resnet8"]
    parser.add_argument("--batch", type=int, default=128, help="samples of a step")
    parser.add_argument("--pair", nargs="+", choices=list(PAIRS), default=pairs, help="teachers and students")
    parser.add_argument("--threads", type=int, default=0, help="of torch; 0: as torch chooses")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--precision", choices=["float32", "bfloat16"], default="float32")
    parser.add_argument("--live", action="store_true", help="let the teacher run along in every step")
    parser.add_argument("--only", nargs="+", default=[], metavar="START", help="variants whose name starts so")
    parser.add_argument("--steps", type=int, default=1, help="of a timed run; several keep a GPU's queue filled")
    parser.add_argument("--rounds", type=int, default=20, help="interleaved rounds")
    parser.add_argument("--warmup", type=int, default=2, help="runs of each variant before the rounds")
    parser.add_argument("--cpu-time", action="store_true", help="this process's CPU time; with --threads 1")
    parser.add_argument("--json", type=Path, help="where to add the rows, beside those of other devices and pairs")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    main()
