"""Runs all runs of an experiment file in plain processes: for a machine that has a GPU, and torch, but no Ray.

    python -m benchmarks.pool search_spaces/harmful_path.yaml --device cuda --processes 14
    distillery compare harmful_path

The runs are those of ``distillery sweep``, and each is the same training function; what Ray and MLflow add is missing:
stopping rules, several workers, the target store, tracking. What would change results is refused, and what is only
skipped is said. Results lie where a sweep's would, under the same lock, and what has ended is not run again; what
failed is.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import sys
import time
from collections.abc import Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from typing import Any

import torch

from distill.host import LocalHost
from orchestrator.config import Experiment, PlannedRun, UserError, load
from orchestrator.config.design import Design
from orchestrator.config.experiment import ROUNDED
from orchestrator.description import describe
from orchestrator.execute import execute
from orchestrator.failure_reason import failure_reason
from orchestrator.job import Job
from orchestrator.lock import lock
from orchestrator.outputs import Outputs
from orchestrator.session import record
from orchestrator.teaching import is_ready, load_result, teacher_directory, teacher_job

Ended = tuple[dict[str, Any], list[dict[str, Any]]]
"""The result of a run, and what it reported after each epoch."""

DONE, FAILED, USER_ERROR = 0, 1, 2


def run_all(experiment: Experiment, *, device: str, processes: int) -> int:
    """Run what has not ended yet, several runs at a time; return how many failed or were lost.

    Raises:
        UserError: the folder belongs to another configuration, or the file asks for what only a sweep has.
        LockHeldError: someone else is at work in the folder.
    """
    design = Design(experiment)
    _refuse(experiment, design)
    runs = design.planned()
    print("\n".join([f"{experiment.name}: {len(runs)} runs", *design.notes, *_skipped(experiment)]), flush=True)
    outputs = Outputs(experiment.run.storage, experiment.name)
    with lock(outputs.remote.uri, command=f"pool {experiment.name}"):
        outputs.claim(describe(experiment, planned=len(runs)), resume=True)
        outputs.note_teachers(_make_teachers(runs, outputs, device))
        ended = {run.key for run, _, _ in outputs.ended_of(runs)}
        # Seed by seed, so that what was stopped compares all arms.
        waiting = sorted((run for run in runs if run.key not in ended), key=lambda run: run.seed)
        return _run(waiting, outputs, device=device, processes=processes, metric=experiment.run.metric)


def _run(waiting: Sequence[PlannedRun], outputs: Outputs, *, device: str, processes: int, metric: str) -> int:
    """Run these, and write down how each ends; return how many failed or were lost."""
    started, num_failed = time.perf_counter(), 0
    lost: list[PlannedRun] = []
    with ProcessPoolExecutor(processes, multiprocessing.get_context("spawn")) as pool:
        running = {pool.submit(_execute, _job(run, outputs).to_dict(), device): run for run in waiting}
        for number, future in enumerate(as_completed(running), start=1):
            run = running[future]
            try:
                result, history = future.result()
            except BrokenProcessPool:
                lost.append(run)
                continue
            for metrics in history:
                outputs.reported(run.key, metrics)
            outputs.ended(record(run, result))
            num_failed += result["status"] == "failed"
            print(
                f"{time.perf_counter() - started:.0f} s [{number}/{len(waiting)}] {run.name}: {_shown(result, metric)}",
                flush=True,
            )
    if lost:
        names = ", ".join(run.name for run in waiting if run in lost)
        print(
            f"a process was killed, which ended all of them (was memory enough for {processes}?); lost, with no "
            f"record, are the {len(lost)} runs that had not ended: {names}; the same command goes on with them",
            file=sys.stderr,
        )
    return num_failed + len(lost)


def _refuse(experiment: Experiment, design: Design) -> None:
    """See that the runs are those of a sweep.

    Raises:
        UserError: the file asks for what would make them others.
    """
    run = experiment.run
    problems = []
    if design.is_sampled:
        problems.append(f"run.num_arms: arms that are proposed on the way need distillery sweep, found {run.num_arms}")
    if run.scheduler is not None:
        problems.append(f"run.scheduler: arms are stopped by distillery sweep alone, found {run.scheduler['use']}")
    if run.workers > 1:
        problems.append(f"run.workers: a run of several workers needs distillery sweep, found {run.workers}")
    if experiment.store == ROUNDED:
        problems.append(f"store: rounded targets need the store of distillery sweep, found {experiment.store}")
    if problems:
        raise UserError(problems)


def _skipped(experiment: Experiment) -> list[str]:
    """Say what the file asks for in vain, though results stay as they are."""
    run = experiment.run
    lines = {
        "store: exact: nothing is stored, each run asks its teacher": experiment.store == "exact",
        "run.tracking_uri: nothing is tracked": run.tracking_uri is not None,
        "run.max_failures: what fails is tried again by the same command": run.max_failures > 0,
        "run.max_concurrent: --processes counts": run.max_concurrent is not None,
    }
    return [line for line, is_asked_for in lines.items() if is_asked_for]


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


def _shown(result: dict[str, Any], metric: str) -> str:
    """Return how a run ended, with the metric that ranks it where it has one."""
    if result["status"] == "failed":
        return f"failed: {result['reason']}"
    value = (result["validation"] or {}).get(metric.rpartition("/")[2])
    return result["status"] if value is None else f"{metric} {value:.4g}"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a file; return 0, 1 where a run failed or was lost, 2 where the file or the command line is wrong."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.pool", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("file")
    parser.add_argument("overrides", nargs="*", metavar="KEY=VALUE", help="as for distillery sweep")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--processes", type=int, default=os.cpu_count(), help="runs at a time")
    options = parser.parse_args(arguments)
    try:
        experiment = load(options.file, options.overrides)
        num_failed = run_all(experiment, device=options.device, processes=options.processes)
    except (UserError, ValueError) as error:
        print(error, file=sys.stderr)
        return USER_ERROR
    return FAILED if num_failed else DONE


if __name__ == "__main__":
    raise SystemExit(main())
