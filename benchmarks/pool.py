"""Runs all runs of an experiment file in plain processes: for a machine that has a GPU, and torch, but no Ray.

    python -m benchmarks.pool search_spaces/harmful_path.yaml --device cuda --processes 14
    distillery compare harmful_path

The runs are those of ``distillery sweep``, and each is the same training function; what Ray and MLflow add is missing:
stopping rules, several workers, the target store, tracking. Results lie where a sweep's would, and what has ended is
not run again.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import time
from collections.abc import Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from typing import Any

import torch

from distill.host import LocalHost
from orchestrator.config import Experiment, PlannedRun, load
from orchestrator.config.design import Design
from orchestrator.description import describe
from orchestrator.execute import execute
from orchestrator.failure_reason import failure_reason
from orchestrator.job import Job
from orchestrator.outputs import Outputs
from orchestrator.session import record
from orchestrator.teaching import is_ready, load_result, teacher_directory, teacher_job

Ended = tuple[dict[str, Any], list[dict[str, Any]]]
"""The result of a run, and what it reported after each epoch."""


def run_all(experiment: Experiment, *, device: str, processes: int) -> int:
    """Run what has not ended yet, several runs at a time; return how many failed.

    Raises:
        UserError: the folder belongs to another configuration.
    """
    design = Design(experiment)
    if design.is_sampled:
        raise ValueError("arms that are proposed on the way need distillery sweep; found run.num_arms")
    runs = design.planned()
    outputs = Outputs(experiment.run.storage, experiment.name)
    outputs.claim(describe(experiment, planned=len(runs)), resume=True)
    outputs.note_teachers(_make_teachers(runs, outputs, device))
    ended = {key for key, each in outputs.past_results().items() if each["result"]["status"] == "finished"}
    # Seed by seed, so that what was stopped compares all arms.
    waiting = sorted((run for run in runs if run.key not in ended), key=lambda run: run.seed)
    started, num_failed = time.perf_counter(), 0
    with ProcessPoolExecutor(processes, multiprocessing.get_context("spawn")) as pool:
        running = {pool.submit(_execute, _job(run, outputs).to_dict(), device): run for run in waiting}
        for number, future in enumerate(as_completed(running), start=1):
            run, (result, history) = running[future], future.result()
            for metrics in history:
                outputs.reported(run.key, metrics)
            outputs.ended(record(run, result))
            num_failed += result["status"] == "failed"
            print(
                f"{time.perf_counter() - started:.0f} s [{number}/{len(waiting)}] {run.name}: {_shown(result)}",
                flush=True,
            )
    return num_failed


def _make_teachers(runs: Iterable[PlannedRun], outputs: Outputs, device: str) -> dict[str, dict[str, Any]]:
    """Train the teachers that are missing; return the stored results of all, by fingerprint."""
    jobs = [teacher_job(run.config, outputs.root) for run in runs if run.config["teacher"] is not None]
    distinct = {job.config_hash: job for job in jobs}
    for job in distinct.values():
        if not is_ready(job):
            print("training the teacher", flush=True)
            execute(job.to_dict(), LocalHost(torch.device(device)))
    return {mark: load_result(job.directory) for mark, job in distinct.items()}


def _job(run: PlannedRun, outputs: Outputs) -> Job:
    return Job(
        config=run.config,
        config_hash=run.config_hash,
        directory=outputs.run_directory(run.key),
        teacher=teacher_directory(run.config, outputs.root),
        name=run.name,
    )


def _execute(payload: dict[str, Any], device: str) -> Ended:
    torch.set_num_threads(1)
    history: list[dict[str, Any]] = []
    try:
        return execute(payload, LocalHost(torch.device(device), on_report=history.append)), history
    except Exception as error:
        return {"status": "failed", "reason": failure_reason(error)}, history


def _shown(result: dict[str, Any]) -> str:
    if result["status"] == "failed":
        return f"failed: {result['reason']}"
    return f"validation {result['validation']['accuracy']:.2f} %" if result["validation"] else "finished"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a file."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.pool", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("file")
    parser.add_argument("overrides", nargs="*", metavar="KEY=VALUE", help="as for distillery sweep")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--processes", type=int, default=os.cpu_count(), help="runs at a time")
    options = parser.parse_args(arguments)
    return int(run_all(load(options.file, options.overrides), device=options.device, processes=options.processes) > 0)


if __name__ == "__main__":
    raise SystemExit(main())
