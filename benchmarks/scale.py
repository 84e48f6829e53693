"""Many trivial trials through the real sweep: seconds and bytes a trial, memory of the driver, MLflow's answer.

    python -m benchmarks.scale --trials 1000 --json scale.json

One epoch of a tiny student a trial. The driver's memory is read every few seconds: it must not grow with the trials. At
the end MLflow is asked for its best runs, as its UI would. About 20 minutes for 1,000 trials on two cores.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from benchmarks import timing
from benchmarks.commands import ROOT, distillery, write_experiment

IMAGES = 32


def experiment(trials: int) -> dict[str, Any]:
    """Return a sweep of this many trials, the student alone among them."""
    seeds = 10
    rates = [round(0.001 * (number + 1), 6) for number in range(max(1, trials // (2 * seeds)))]
    return {
        "data": {"use": "Digits", "split": {"train": IMAGES, "validation": 100, "teacher": "rest"}, "augment": []},
        "teacher": {"model": {"use": "ResNet8", "width": 8}, "train": {"epochs": 1}},
        "student": {"model": {"use": "ResNet8", "width": 8}},
        "paths": {"soft_target": {"use": "SoftTarget"}},
        "train": {"epochs": 1, "batch_size": 32, "optimizer": {"use": "torch.optim.SGD", "lr": 0.1}},
        "search": {"train.optimizer.lr": {"grid": rates}, "seed": {"grid": list(range(seeds))}},
    }


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, print, and save where asked to."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=1000)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory(prefix="distillery-bench-") as name:
        result = measure(Path(name), options.trials)
    print("\n".join(report(result)))
    if options.json:
        options.json.parent.mkdir(parents=True, exist_ok=True)
        content = {"machine": timing.machine(torch.device("cpu")), **result}
        options.json.write_text(json.dumps(content, indent=1) + "\n")


def measure(folder: Path, trials: int) -> dict[str, Any]:
    """Run the sweep and watch its driver."""
    file = write_experiment(folder / "scale.yaml", experiment(trials))
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    started = time.perf_counter()
    with (folder / "log").open("w") as log:
        command = distillery("sweep", str(file), f"run.storage={folder / 'outputs'}")
        driver = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, cwd=ROOT, env=environment)
        watched = _watch(driver, folder / "outputs" / "scale" / "runs.jsonl")
    seconds = time.perf_counter() - started
    if driver.returncode:
        raise RuntimeError((folder / "log").read_text()[-2000:])
    ended = _lines(folder / "outputs" / "scale" / "runs.jsonl")
    return {
        "trials": ended,
        "seconds": seconds,
        "bytes": sum(path.stat().st_size for path in (folder / "outputs").rglob("*") if path.is_file()),
        "bytes_of_mlflow": (folder / "outputs" / "mlflow.db").stat().st_size,
        "driver": watched,
        "mlflow_seconds": _ask_mlflow(folder / "outputs" / "mlflow.db"),
    }


def _watch(driver: subprocess.Popen[bytes], records: Path) -> list[dict[str, float]]:
    """Read the driver's memory, its CPU seconds and the number of trials that ended, until it ends."""
    seen = []
    started = time.perf_counter()
    while driver.poll() is None:
        status = Path(f"/proc/{driver.pid}/status")
        lines = status.read_text().splitlines() if status.exists() else []
        memory = [int(line.split()[1]) for line in lines if line.startswith("VmRSS")]
        if memory:
            point = {"seconds": time.perf_counter() - started, "mib": memory[0] / 1024, "ended": _lines(records)}
            seen.append(point | {"cpu": _cpu_seconds(driver.pid)})
        time.sleep(2)
    return seen


def _cpu_seconds(pid: int) -> float:
    """Return the CPU seconds of a process, all its threads, without its children."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _lines(path: Path) -> int:
    return path.read_text().count("\n") if path.exists() else 0


def _ask_mlflow(database: Path) -> float:
    """Return how long MLflow takes to find the ten best runs."""
    from mlflow import MlflowClient

    client = MlflowClient(f"sqlite:///{database}")
    experiments = [found.experiment_id for found in client.search_experiments()]
    started = time.perf_counter()
    client.search_runs(experiments, order_by=["metrics.`result/accuracy` DESC"], max_results=10)
    return time.perf_counter() - started


def driver_seconds(result: dict[str, Any]) -> float:
    """Return the driver's CPU seconds a trial while trials come and go."""
    steady = _steady(result)
    first, last = steady[0], steady[-1]
    return (last["cpu"] - first["cpu"]) / max(1.0, last["ended"] - first["ended"])


def _steady(result: dict[str, Any]) -> list[dict[str, float]]:
    """Return what was seen of the driver between its start and its conclusion: beyond a fifth of the trials."""
    points: list[dict[str, float]] = result["driver"]
    return [point for point in points if 0.2 * result["trials"] < point["ended"] < result["trials"]]


def report(result: dict[str, Any]) -> list[str]:
    """Return what was measured, in words."""
    trials, steady = result["trials"], _steady(result)
    first, last = steady[: len(steady) // 4 or 1], steady[-(len(steady) // 4 or 1) :]
    most = max(point["mib"] for point in result["driver"])
    grown = statistics.mean(p["mib"] for p in last) - statistics.mean(p["mib"] for p in first)
    return [
        f"{trials:,} trials in {result['seconds'] / 60:.1f} min: {result['seconds'] / trials:.2f} s a trial, of these "
        f"{driver_seconds(result):.3f} s of the driver's CPU",
        f"{result['bytes'] / trials / 1000:.1f} kB a trial on disk, {result['bytes_of_mlflow'] / trials / 1000:.1f} kB "
        "of it in MLflow",
        f"driver: {most:.0f} MiB at most, {grown:+.1f} from a fifth of the trials to the last",
        f"MLflow finds the ten best runs in {result['mlflow_seconds']:.2f} s",
    ]


if __name__ == "__main__":
    main()
