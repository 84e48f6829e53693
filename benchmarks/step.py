"""What a distillation step costs, as a ratio to the plain supervised step: ours, by hand, and torchdistill's.

    python -m benchmarks.step --json step.json

Twelve interleaved rounds take about two minutes on two cores. ``benchmarks/README.md`` explains the lines.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import torch
from torch.utils.flop_counter import FlopCounterMode

from benchmarks import timing, variants
from benchmarks.variants import PATHS, Step
from benchmarks.workbench import PAIRS, Workbench

SETS: dict[str, tuple[str, ...]] = {
    **{name: (name,) for name in PATHS},
    "ST+AT": ("ST", "AT"),
    "four": ("ST", "AT", "NST", "Logits"),
}
"""Path sets by label; ``four`` are the paper's."""
RIVALS = ("ST+AT", "four")
"""The path sets that others' steps are timed on."""


def make_variants(bench: Workbench, sets: Sequence[str], store: Path) -> tuple[dict[str, Step], list[str]]:
    """Return the steps to time by name, and why others are left out; targets are stored in the folder ``store``."""
    makers: list[tuple[str, Callable[[], Step]]] = [
        ("plain, torch's layout", lambda: variants.plain(bench, channels_last=False)),
        ("plain", lambda: variants.plain(bench, channels_last=bench.channels_last)),
        ("teacher forward", lambda: variants.teacher_forward(bench)),
    ]
    for label in sets:
        names = SETS[label]
        makers.append((f"at hand: {label}", lambda names=names: variants.at_hand(bench, names)))  # type: ignore[misc]
        makers.append((f"stored: {label}", lambda names=names: variants.stored(bench, names, store)))  # type: ignore[misc]
        makers.append((f"live: {label}", lambda names=names: variants.live(bench, names)))  # type: ignore[misc]
        if label in RIVALS:
            makers.append((f"by hand: {label}", lambda names=names: variants.by_hand(bench, names)))  # type: ignore[misc]
            makers.append(
                (f"torchdistill: {label}", lambda names=names: variants.torchdistill(bench, names))  # type: ignore[misc]
            )
    steps, left_out = {}, []
    for name, make in makers:
        try:
            steps[name] = make()
        except ImportError as error:
            left_out.append(f"{name} is left out: {error} (pip install --no-deps torchdistill==1.1.5)")
    return steps, left_out


def summarise(seconds: timing.Seconds) -> dict[str, timing.Ratio]:
    """Return the ratios that answer: what does distilling cost, and what would it cost elsewhere?"""
    ratios = {"plain, torch's layout / plain": timing.compare(seconds["plain, torch's layout"], seconds["plain"])}
    labels = [name.removeprefix("at hand: ") for name in seconds if name.startswith("at hand: ")]
    for label in labels:
        ratios[f"at hand: {label} / plain"] = timing.compare(seconds[f"at hand: {label}"], seconds["plain"])
    for label in labels:
        ratios[f"stored: {label} / plain"] = timing.compare(seconds[f"stored: {label}"], seconds["plain"])
    for label in labels:
        parts = timing.total(seconds["teacher forward"], seconds[f"stored: {label}"])
        ratios[f"live: {label} / (teacher forward + stored)"] = timing.compare(seconds[f"live: {label}"], parts)
    for label in labels:
        for rival in ("by hand", "torchdistill"):
            if f"{rival}: {label}" in seconds:
                theirs = seconds[f"{rival}: {label}"]
                for ours in ("live", "stored"):
                    ratio = timing.compare(theirs, seconds[f"{ours}: {label}"])
                    ratios[f"{rival}: {label} / {ours}"] = ratio
                ratios[f"{rival}: {label} / plain, torch's layout"] = timing.compare(
                    theirs, seconds["plain, torch's layout"]
                )
    return ratios


def count_operations(step: Step) -> int:
    """Return the floating-point operations of one step's matrix products and convolutions."""
    with FlopCounterMode(display=False) as counter:
        step()
    return counter.get_total_flops()


def measure_peak(bench: Workbench, rounds: int = 20) -> float:
    """Return the operations a second that large matrix products reach here, in the benchmark's precision."""
    side = 8192 if bench.device.type == "cuda" else 1024
    kind = torch.bfloat16 if bench.precision == "bfloat16" else torch.float32
    left, right = (torch.randn(side, side, device=bench.device, dtype=kind) for _ in range(2))
    product = {"product": lambda: left @ right}
    seconds = timing.interleave(product, rounds=rounds, warmup=3, device=bench.device)["product"]
    return 2 * side**3 / min(seconds)


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, print, and save where asked to."""
    options = _parse(arguments)
    if options.threads:
        torch.set_num_threads(options.threads)
    bench = Workbench(
        pair=PAIRS[options.pair],
        batch=options.batch,
        device=torch.device(options.device),
        precision=options.precision,
        channels_last=not options.torch_layout,
        compile=options.compile,
    )
    clock = time.process_time if options.cpu_time else time.perf_counter
    with tempfile.TemporaryDirectory(prefix="distillery-bench-") as store:
        steps, left_out = make_variants(bench, options.sets, Path(store))
        seconds = timing.interleave(
            steps, rounds=options.rounds, warmup=options.warmup, device=bench.device, clock=clock
        )
        operations = {}
        if options.peak:
            eager, _ = make_variants(replace(bench, compile=False), options.sets, Path(store))
            operations = {name: count_operations(step) for name, step in eager.items()}
    ratios = summarise(seconds)
    setting = {
        "clock": clock.__name__,
        "pair": options.pair,
        **{key: str(value) for key, value in vars(bench).items() if key != "pair"},
        **timing.machine(bench.device),
    }
    if options.peak:
        setting["peak"] = measure_peak(bench)
    print(", ".join(f"{key} {value}" for key, value in setting.items()))
    for name, values in seconds.items():
        median = statistics.median(values)
        line = f"{name:32} {1e3 * median:8.1f} ms {bench.batch / median:9.0f} images/s"
        if options.peak:
            line += f" {operations[name] / median / setting['peak']:7.1%} of the peak"
        print(line)
    for name, ratio in ratios.items():
        print(f"{name:56} {ratio}")
    for reason in left_out:
        print(reason)
    if options.json:
        timing.save(options.json, setting, seconds, ratios)


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.step", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--batch", type=int, default=128, help="samples of a step")
    parser.add_argument("--pair", choices=list(PAIRS), default="resnet20-resnet8", help="teacher and student")
    parser.add_argument("--threads", type=int, default=0, help="of torch; 0: as torch chooses")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--precision", choices=["float32", "bfloat16"], default="float32")
    parser.add_argument("--torch-layout", action="store_true", help="our steps in torch's layout too: no channels-last")
    parser.add_argument("--compile", action="store_true", help="compile our steps, and the plain one in our layout")
    parser.add_argument("--sets", nargs="+", choices=list(SETS), default=list(SETS), help="the path sets to time")
    parser.add_argument("--rounds", type=int, default=12, help="interleaved rounds")
    parser.add_argument("--warmup", type=int, default=2, help="runs of each variant before the rounds")
    parser.add_argument("--peak", action="store_true", help="show the share of the peak of this machine's products")
    parser.add_argument("--cpu-time", action="store_true", help="this process's CPU time; with --threads 1")
    parser.add_argument("--json", type=Path, help="where to save every round's seconds and the ratios")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    main()
