"""What orchestration costs: one training in a bare loop, in process, as a Tune trial, under Ray Train and torchrun.

    python -m benchmarks.orchestration --json orchestration.json

Every variant trains the same student from the same initial weights on the same batches, one thread a worker. "A step"
is the fastest of the epochs, with its evaluation and without its checkpoint, as a ratio to the bare loop's of the same
round: what else the machine does only adds to an epoch. "Fixed" is what the whole command took beyond its epochs:
start, checks, checkpoints, records. What is ours of it follows: in process beyond the bare loop, under Ray Train beyond
the same command in process and an empty TorchTrainer. A Tune trial's is all of it. About 7 minutes a round.
"""

from __future__ import annotations

import argparse
import itertools
import json
import statistics
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch

from benchmarks import timing
from benchmarks.commands import distillery, history, timed, write_experiment

EPOCHS = 30
STEPS = EPOCHS * 1000 // 50

EXPERIMENT: dict[str, Any] = {
    "data": {"use": "Digits", "split": {"train": 1000, "validation": 200, "teacher": "rest"}},
    "teacher": {"model": {"use": "ResNet8", "width": 16}, "train": {"epochs": 1}},
    "student": {"model": {"use": "ResNet8", "width": 16}},
    "paths": {"soft_target": {"use": "SoftTarget"}, "attention": {"use": "AttentionTransfer"}},
    "aggregator": {"use": "Adaptive"},
    "train": {"epochs": EPOCHS, "batch_size": 50, "optimizer": {"use": "torch.optim.SGD", "lr": 0.05, "momentum": 0.9}},
    "store": "off",
}

TORCHRUN = "torchrun DDP, 2 workers"
PLAIN_RAY = "bare loop in a TorchTrainer, 2 workers"

NOT_OURS: dict[str, tuple[str, ...]] = {
    "distillery train": ("bare loop",),
    "Tune trial": (),
    "Ray Train, 1 worker": ("distillery train", "empty TorchTrainer, 1 worker"),
    "Ray Train, 2 workers": ("distillery train", "empty TorchTrainer, 2 workers"),
}
"""What a variant's fixed seconds are compared with."""

EMPTY_TRAINER = """
import sys
from ray.train import ScalingConfig
from ray.train.torch import TorchTrainer
import ray
ray.init("local", include_dashboard=True, log_to_driver=False)
TorchTrainer(lambda config: None, scaling_config=ScalingConfig(num_workers=int(sys.argv[1]))).fit()
ray.shutdown()
"""


class Run(NamedTuple):
    """One command: the seconds that it took, and those of its epochs."""

    seconds: float
    epochs: list[float]


Round = dict[str, Run]
"""By variant."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, print, and save where asked to."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory(prefix="distillery-bench-") as folder:
        rounds = [_round(Path(folder) / str(number)) for number in range(options.rounds)]
    summary = summarise(rounds)
    print("\n".join(report(summary)))
    if options.json:
        content = {
            "machine": timing.machine(torch.device("cpu")),
            "rounds": [{name: run._asdict() for name, run in each.items()} for each in rounds],
            "summary": summary,
        }
        options.json.parent.mkdir(parents=True, exist_ok=True)
        options.json.write_text(json.dumps(content, indent=1) + "\n")


def _round(folder: Path) -> Round:
    """Run every variant once; return the seconds of the whole command and of its epochs."""
    folder.mkdir(parents=True)
    file = write_experiment(folder / "bench.yaml", EXPERIMENT)
    storage = f"run.storage={folder / 'outputs'}"
    timed(distillery("teach", str(file), storage), log=folder / "teach.log")

    def ours(name: str, *settings: str) -> Run:
        whole = timed(distillery("train", str(file), storage, f"name={name}", *settings), log=folder / f"{name}.log")
        [reports] = history(folder / "outputs" / name).values()
        return Run(whole, _epochs(reports))

    def loop(name: str, *launcher: str, arguments: Sequence[str] = ()) -> Run:
        result = folder / f"{name}.json"
        arguments = ["--file", str(file), "--storage", str(folder / "outputs"), "--result", str(result), *arguments]
        whole = timed([sys.executable, *launcher, "-m", "benchmarks.bare_loop", *arguments], log=folder / f"{name}.log")
        return Run(whole, json.loads(result.read_text())["epochs"])

    torchrun = ("-m", "torch.distributed.run", "--nproc_per_node=2", "--master_port=29533")
    return {
        "bare loop": loop("bare"),
        "distillery train": ours("in-process"),
        "Tune trial": _trials(folder, file, storage),
        "Ray Train, 1 worker": ours("train-1", "--address", "local"),
        "empty TorchTrainer, 1 worker": _script(folder, "empty-1", EMPTY_TRAINER, "1"),
        TORCHRUN: loop("torchrun", *torchrun),
        PLAIN_RAY: loop("plain-ray", arguments=("--ray-workers", "2")),
        "Ray Train, 2 workers": ours("train-2", "run.workers=2"),
        "empty TorchTrainer, 2 workers": _script(folder, "empty-2", EMPTY_TRAINER, "2"),
    }


def _script(folder: Path, name: str, text: str, *arguments: str) -> Run:
    path = folder / f"{name}.py"
    path.write_text(text)
    return Run(timed([sys.executable, str(path), *arguments], log=folder / f"{name}.log"), [])


def _trials(folder: Path, file: Path, storage: str) -> Run:
    """Time a sweep of two trials, one after the other, and one of seven: the difference is five trials."""
    few = _sweep(folder, file, storage, "few", {"paths": {"sets": [["soft_target"]]}})
    sets = [["soft_target"], ["attention"], ["soft_target", "attention"]]
    aggregators = [{"use": "Adaptive"}, {"use": "LogSum"}]
    many = _sweep(folder, file, storage, "many", {"paths": {"sets": sets}, "aggregator": {"grid": aggregators}})
    fixed = (many.fixed - few.fixed) / (many.trials - few.trials)
    return Run(fixed + sum(many.epochs), many.epochs)


class _Sweep(NamedTuple):
    fixed: float
    trials: int
    epochs: list[float]
    """Of the last trial that trains what the other variants train: with both paths."""


def _sweep(folder: Path, file: Path, storage: str, name: str, search: dict[str, Any]) -> _Sweep:
    settings = [storage, f"name={name}", f"search={json.dumps(search)}", "run.max_concurrent=1"]
    whole = timed(distillery("sweep", str(file), *settings), log=folder / f"{name}.log")
    runs = list(history(folder / "outputs" / name).values())
    fixed = whole - sum(sum(_epochs(reports)) for reports in runs)
    paths = {f"train/loss/{path}" for path in EXPERIMENT["paths"]}
    both = [reports for reports in runs if paths <= {*reports[0]}]
    return _Sweep(fixed, len(runs), _epochs(both[-1]) if both else [])


def _epochs(reports: Sequence[dict[str, Any]]) -> list[float]:
    """Return the seconds of each epoch."""
    seconds = [report["seconds"] for report in reports]
    return [after - before for before, after in itertools.pairwise([0.0, *seconds])]


def summarise(rounds: Sequence[Round]) -> dict[str, dict[str, float]]:
    """Return, by variant, a step's ratio to its bare counterpart, the fixed seconds of a run, and ours among them."""
    fixed = {name: [each[name].seconds - sum(each[name].epochs) for each in rounds] for name in rounds[0]}
    summary: dict[str, dict[str, float]] = {}
    for name, seconds in fixed.items():
        summary[name] = {"n": len(rounds), "fixed": statistics.mean(seconds), "fixed_sd": _sd(seconds)}
        against = TORCHRUN if name.endswith("2 workers") else "bare loop"
        if rounds[0][name].epochs and name != TORCHRUN:
            epochs, bare = ([min(each[variant].epochs) for each in rounds] for variant in (name, against))
            ratio = timing.compare(epochs, bare)
            summary[name] |= {"step": ratio.median, "step_sd": ratio.sd}
        if name in NOT_OURS:
            ours = [own - sum(fixed[other][at] for other in NOT_OURS[name]) for at, own in enumerate(seconds)]
            summary[name] |= {"ours": statistics.mean(ours), "ours_sd": _sd(ours)}
    return summary


def report(summary: dict[str, dict[str, float]]) -> list[str]:
    """Return the table."""
    lines = [f"{'':40}{'a step':>18}{'fixed seconds a run':>22}{'of these ours':>18}"]
    for name, row in summary.items():
        step, fixed, ours = (
            f"{row[key]:.{places}f} +- {row[f'{key}_sd']:.{places}f}" if key in row else ""
            for key, places in (("step", 3), ("fixed", 1), ("ours", 1))
        )
        lines.append(f"{name:40}{step:>18}{fixed:>22}{ours:>18}".rstrip())
    rounds = int(next(iter(summary.values()))["n"])
    return [
        *lines,
        f"n = {rounds} rounds of {STEPS} steps; a step against the bare loop, with 2 workers against torchrun",
    ]


def _sd(values: Sequence[float]) -> float:
    return statistics.stdev(values) if len(values) > 1 else 0.0


if __name__ == "__main__":
    main()
