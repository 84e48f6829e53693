"""What orchestration costs: one training in a bare loop, in process, as a Tune trial, under Ray Train and torchrun.

    python -m benchmarks.orchestration --json orchestration.json

Every variant trains the same student from the same initial weights on the same batches, one thread a worker. "A step"
is the time that the epochs took, with their evaluation and without their checkpoints, as a ratio to the bare loop of
the same round; "a run" is what the whole command took beyond that. About 10 minutes on two cores.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from benchmarks import timing
from benchmarks.commands import distillery, history, timed, write_experiment

EXPERIMENT: dict[str, Any] = {
    "data": {"use": "Digits", "split": {"train": 1000, "validation": 200, "teacher": "rest"}},
    "teacher": {"model": {"use": "ResNet8", "width": 16}, "train": {"epochs": 1}},
    "student": {"model": {"use": "ResNet8", "width": 16}},
    "paths": {"soft_target": {"use": "SoftTarget"}, "attention": {"use": "AttentionTransfer"}},
    "aggregator": {"use": "Adaptive"},
    "train": {"epochs": 30, "batch_size": 50, "optimizer": {"use": "torch.optim.SGD", "lr": 0.05, "momentum": 0.9}},
    "store": "off",
}
STEPS = 30 * 1000 // 50

EMPTY_TRAINER = """
import sys
from ray.train import ScalingConfig
from ray.train.torch import TorchTrainer
import ray
ray.init("local", include_dashboard=True, log_to_driver=False)
TorchTrainer(lambda config: None, scaling_config=ScalingConfig(num_workers=int(sys.argv[1]))).fit()
ray.shutdown()
"""


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
        content = {"machine": timing.machine(torch.device("cpu")), "rounds": rounds, "summary": summary}
        options.json.parent.mkdir(parents=True, exist_ok=True)
        options.json.write_text(json.dumps(content, indent=1) + "\n")


def _round(folder: Path) -> dict[str, dict[str, float]]:
    """Run every variant once; return its whole seconds and those of its training."""
    folder.mkdir(parents=True)
    file = write_experiment(folder / "bench.yaml", EXPERIMENT)
    storage = f"run.storage={folder / 'outputs'}"
    timed(distillery("teach", str(file), storage), log=folder / "teach.log")

    def ours(name: str, *settings: str) -> dict[str, float]:
        whole = timed(distillery("train", str(file), storage, f"name={name}", *settings), log=folder / f"{name}.log")
        [reports] = history(folder / "outputs" / name).values()
        return {"whole": whole, "training": reports[-1]["seconds"]}

    def loop(name: str, *launcher: str) -> dict[str, float]:
        result = folder / f"{name}.json"
        arguments = ["--file", str(file), "--storage", str(folder / "outputs"), "--result", str(result)]
        whole = timed([sys.executable, *launcher, "-m", "benchmarks.bare_loop", *arguments], log=folder / f"{name}.log")
        return {"whole": whole, "training": json.loads(result.read_text())["seconds"]}

    torchrun = ("-m", "torch.distributed.run", "--nproc_per_node=2", "--master_port=29533")
    return {
        "bare loop": loop("bare"),
        "distillery train": ours("in-process"),
        "Tune trial": _trials(folder, file, storage),
        "Ray Train, 1 worker": ours("train-1", "--address", "local"),
        "empty TorchTrainer, 1 worker": _script(folder, "empty-1", EMPTY_TRAINER, "1"),
        "torchrun DDP, 2 workers": loop("torchrun", *torchrun),
        "Ray Train, 2 workers": ours("train-2", "run.workers=2"),
        "empty TorchTrainer, 2 workers": _script(folder, "empty-2", EMPTY_TRAINER, "2"),
    }


def _script(folder: Path, name: str, text: str, *arguments: str) -> dict[str, float]:
    path = folder / f"{name}.py"
    path.write_text(text)
    return {"whole": timed([sys.executable, str(path), *arguments], log=folder / f"{name}.log"), "training": 0.0}


def _trials(folder: Path, file: Path, storage: str) -> dict[str, float]:
    """Time a sweep of two trials, one after the other, and one of seven: the difference is five trials."""
    few = _sweep(folder, file, storage, "few", {"paths": {"sets": [["soft_target"]]}})
    sets = [["soft_target"], ["attention"], ["soft_target", "attention"]]
    aggregators = [{"use": "Adaptive"}, {"use": "LogSum"}]
    many = _sweep(folder, file, storage, "many", {"paths": {"sets": sets}, "aggregator": {"grid": aggregators}})
    trials = many["trials"] - few["trials"]
    return {name: (many[name] - few[name]) / trials for name in ("whole", "training")}


def _sweep(folder: Path, file: Path, storage: str, name: str, search: dict[str, Any]) -> dict[str, float]:
    settings = [storage, f"name={name}", f"search={json.dumps(search)}", "run.max_concurrent=1"]
    whole = timed(distillery("sweep", str(file), *settings), log=folder / f"{name}.log")
    runs = history(folder / "outputs" / name)
    return {"whole": whole, "training": sum(each[-1]["seconds"] for each in runs.values()), "trials": len(runs)}


def summarise(rounds: Sequence[dict[str, dict[str, float]]]) -> dict[str, dict[str, float]]:
    """Return, by variant, a step's ratio to its bare counterpart and the fixed seconds of a run, with deviations."""
    summary = {}
    for name in rounds[0]:
        fixed = [each[name]["whole"] - each[name]["training"] for each in rounds]
        summary[name] = {"fixed": statistics.mean(fixed), "fixed_sd": _sd(fixed), "n": len(rounds)}
        against = "torchrun DDP, 2 workers" if name == "Ray Train, 2 workers" else "bare loop"
        if rounds[0][name]["training"] and name != "torchrun DDP, 2 workers":
            ratio = timing.compare([r[name]["training"] for r in rounds], [r[against]["training"] for r in rounds])
            summary[name] |= {"step": ratio.median, "step_sd": ratio.sd}
    return summary


def report(summary: dict[str, dict[str, float]]) -> list[str]:
    """Return the table."""
    lines = [f"{'':32}{'a step':>18}{'fixed seconds a run':>26}"]
    for name, row in summary.items():
        step = f"{row['step']:.3f} +- {row['step_sd']:.3f}" if "step" in row else ""
        lines.append(f"{name:32}{step:>18}{row['fixed']:>18.1f} +- {row['fixed_sd']:.1f}")
    rounds = int(next(iter(summary.values()))["n"])
    return [
        *lines,
        f"n = {rounds} rounds of {STEPS} steps; a step against the bare loop, with 2 workers against torchrun",
    ]


def _sd(values: Sequence[float]) -> float:
    return statistics.stdev(values) if len(values) > 1 else 0.0


if __name__ == "__main__":
    main()
