"""What tracking costs: points a second into the spool and into MLflow, and the training with tracking on and off.

    python -m benchmarks.tracking --json tracking.json

About 5 minutes on two cores. The training runs on one thread, so that the mirror process has a core to itself, as it
has where students train on GPUs.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from benchmarks import timing
from benchmarks.orchestration import EXPERIMENT
from distill.host import LocalHost
from orchestrator.config import Design, load
from orchestrator.description import describe
from orchestrator.execute import execute
from orchestrator.job import Job
from orchestrator.storage import Storage
from orchestrator.teaching import teacher_directory
from orchestrator.tracking import SweepLog, Target, Tracker, spool_directory

NUM_POINTS = 100_000


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, print, and save where asked to."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory(prefix="distillery-bench-") as folder:
        speeds = points_a_second(Path(folder) / "points")
        seconds = trainings(Path(folder), rounds=options.rounds)
    ratio = timing.compare(seconds["on"], seconds["off"])
    print(f"points a second: {speeds['spool']:,.0f} recorded, {speeds['mlflow']:,.0f} into MLflow's sqlite")
    inside = [100 * waited / whole for waited, whole in zip(seconds["waited"], seconds["on"], strict=True)]
    spread = statistics.stdev(inside) if len(inside) > 1 else 0.0
    print(f"training with tracking on / off: {ratio}")
    print(f"of it inside the tracker's calls: {statistics.mean(inside):.3f} % (n={len(inside)}, sd {spread:.3f})")
    if options.json:
        content = {"machine": timing.machine(torch.device("cpu")), "points_a_second": speeds, "seconds": seconds}
        options.json.parent.mkdir(parents=True, exist_ok=True)
        options.json.write_text(json.dumps(content, indent=1) + "\n")


def points_a_second(folder: Path) -> dict[str, float]:
    """Record points of 20 metrics a call, and mirror them; return both speeds."""
    folder.mkdir(parents=True)
    target = Target.beside(folder, "points", None)
    values = {f"train/loss/path{number}": 0.5 for number in range(20)}
    with Tracker(spool_directory(folder, "points"), target=target) as tracker:
        tracker.start_run("run", "run")
        started = time.perf_counter()
        for step in range(NUM_POINTS // len(values)):
            tracker.metrics("run", values, step=step)
        recorded = time.perf_counter()
        tracker.end_run("run", "FINISHED")
    mirrored = time.perf_counter()
    return {"spool": NUM_POINTS / (recorded - started), "mlflow": NUM_POINTS / (mirrored - started)}


def trainings(folder: Path, *, rounds: int) -> timing.Seconds:
    """Train with and without tracking in turns; ``waited`` is what the tracker's calls took of ``on``."""
    file = folder / "bench.yaml"
    file.write_text(json.dumps(EXPERIMENT))
    experiment = load(file, [f"run.storage={folder / 'outputs'}"])
    [planned] = Design(experiment).planned()
    storage = Storage(str(folder / "outputs"))
    teacher = teacher_directory(planned.config, storage)
    if not Path(str(teacher), "result.json").exists():
        from orchestrator.teachers import teach

        teach(experiment, address=None)
    number = iter(range(10_000))

    def train(on_report: Any) -> None:
        directory = str(folder / "runs" / str(next(number)))
        execute(Job(planned.config, "", directory, teacher=teacher).to_dict(), LocalHost(on_report=on_report))

    def off() -> None:
        train(None)

    def on() -> None:
        name = f"tracked{next(number)}"
        target = Target.beside(folder, name, None)
        with Tracker(spool_directory(folder, name), target=target) as tracker:
            log = SweepLog(tracker, describe(experiment, planned=1), source="bench")
            log.start_run(planned)
            started = time.perf_counter()
            inside = 0.0

            def report(metrics: dict[str, Any]) -> None:
                nonlocal inside
                called = time.perf_counter()
                log.epoch(planned.key, metrics)
                inside += time.perf_counter() - called

            train(report)
            tracked.append(time.perf_counter() - started)
            waited.append(inside)

    tracked: list[float] = []
    waited: list[float] = []
    seconds = timing.interleave({"off": off, "on": on}, rounds=rounds, warmup=1, device=torch.device("cpu"))
    # Without the start and the end of the mirror process, which are a run's, not a step's.
    return {"off": seconds["off"], "on": tracked[-rounds:], "waited": waited[-rounds:]}


if __name__ == "__main__":
    main()
