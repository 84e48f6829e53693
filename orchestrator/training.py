"""One run: a file without a search."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import torch

from distill.host import LocalHost
from orchestrator.config import Experiment, PlannedRun
from orchestrator.config.design import Design
from orchestrator.demand import Demand
from orchestrator.description import describe
from orchestrator.execute import execute
from orchestrator.failure_reason import failure_reason
from orchestrator.gpu_share import Memory, find_demand
from orchestrator.job import Job
from orchestrator.lock import lock
from orchestrator.metric_names import is_of_one_class, measured
from orchestrator.outputs import Outputs
from orchestrator.ranking import Ranking
from orchestrator.run_listener import RunListener
from orchestrator.say import say
from orchestrator.session import Session
from orchestrator.store import measure, plan_store
from orchestrator.teachers import prepare_teachers
from orchestrator.teaching import teacher_directory
from orchestrator.tracking import SweepLog, Target, Tracker, spool_directory

log = logging.getLogger(__name__)

RunJob = Callable[[PlannedRun, Job, RunListener], dict[str, Any]]
"""Runs one job, tells the listener, and returns the result."""


def train(experiment: Experiment, *, resume: bool, address: str | None) -> int:
    """Train the student of a file, with its teacher made first where it is missing.

    One worker without an address trains in this very process; several workers, or an address, train on Ray. A job of
    ``ray job submit`` and the script of ``ray submit`` have an address in ``RAY_ADDRESS``: the head may have no GPU.

    Args:
        experiment: a checked file without a search.
        resume: go on from the last checkpoint.
        address: of a Ray cluster; ``None``: ``RAY_ADDRESS``, if it is set.

    Returns:
        0; 1 where the run failed.
    """
    [planned] = Design(experiment).planned()
    outputs = Outputs(experiment.run.storage, experiment.name)
    with lock(outputs.remote.uri, command=f"train {experiment.name}"):
        description = describe(experiment, planned=1)
        outputs.claim(description, resume=resume)
        past = outputs.past_results().get(planned.key)
        if past is not None and past["result"]["status"] == "finished":
            print(f"{experiment.name} has finished already.")
            _print_result(past["result"], outputs, planned)
            return 0
        target = Target.beside(outputs.driver_root, experiment.name, experiment.run.tracking_uri)
        with Tracker(spool_directory(outputs.driver_root, experiment.name), target=target) as tracker:
            mirror = SweepLog(tracker, description, source=experiment.document.name)
            with_host = partial(run_with_host, experiment, address=address)
            result = with_host(lambda run_job: _train(planned, outputs, mirror, run_job))
    if result["status"] == "failed":
        print(f"failed: {result['reason']}")
        return 1
    _print_result(result, outputs, planned)
    return 0


def run_with_host(
    experiment: Experiment, work: Callable[[RunJob], dict[str, Any]], *, address: str | None
) -> dict[str, Any]:
    """Call ``work`` with what runs a job: this process, or a cluster that is up for as long."""
    run = experiment.run
    address = address or os.environ.get("RAY_ADDRESS")
    if run.workers == 1 and address is None:
        torch.set_num_threads(int(run.cpus_per_worker))
        return work(_run_here)
    from orchestrator.cluster import Cluster

    with Cluster(address, with_dashboard=run.workers > 1) as cluster:
        cluster.check_storage(Outputs(run.storage, experiment.name).root.uri)
        groups = cluster.node_groups()
        demand = find_demand(run, groups, measure=_whole_gpu, say=say)
        demand.check_fits(groups)
        return work(partial(_run_on_cluster, demand=demand, max_failures=run.max_failures))


def _whole_gpu() -> list[Memory]:
    """A single run need not share: it gets a GPU for itself."""
    return [(1, 1)]


def _train(planned: PlannedRun, outputs: Outputs, mirror: SweepLog, run_job: RunJob) -> dict[str, Any]:
    teachers = prepare_teachers(
        [planned.config], outputs.root, run_jobs=partial(run_jobs, run_job), mirror=mirror, say=say
    )
    outputs.note_teachers(teachers)
    plan = plan_store(
        [planned],
        mode=planned.config["store"],
        budget_gib=planned.config["run"]["store_gib"],
        storage=outputs.root,
        measure=partial(measure, host=LocalHost()),
    )
    for line in plan.lines():
        say(line)
    job = Job(
        config=planned.config,
        config_hash=planned.config_hash,
        directory=outputs.run_directory(planned.key),
        teacher=teacher_directory(planned.config, outputs.root),
        store=plan.job(planned.config),
        name=planned.name,
    )
    result = run_job(planned, job, _Printing(Session(outputs, mirror)))
    plan.keep_to_budget()
    return result


def run_jobs(run_job: RunJob, runs: Mapping[str, PlannedRun], jobs: Mapping[str, Job], listener: RunListener) -> None:
    """Run jobs one after another."""
    for key, run in runs.items():
        run_job(run, jobs[key], listener)


def _run_here(run: PlannedRun, job: Job, listener: RunListener) -> dict[str, Any]:
    listener.started(run)
    host = LocalHost(on_report=lambda metrics: listener.reported(run, metrics))
    try:
        result = execute(job.to_dict(), host)
    except Exception as error:
        log.debug("traceback:", exc_info=error)
        result = {"status": "failed", "reason": failure_reason(error)}
    listener.ended(run, result)
    return result


def _run_on_cluster(
    run: PlannedRun, job: Job, listener: RunListener, *, demand: Demand, max_failures: int
) -> dict[str, Any]:
    from orchestrator import train_engine

    listener.started(run)
    result = train_engine.run(
        execute,
        job.to_dict(),
        demand=demand,
        on_report=lambda metrics: listener.reported(run, metrics),
        max_failures=max_failures,
        key=run.key,
    )
    listener.ended(run, result)
    return result


class _Printing:
    """Prints one line an epoch, and passes everything on."""

    def __init__(self, listener: RunListener) -> None:
        self._listener = listener

    def started(self, run: PlannedRun) -> None:
        say(f"training {run.name} ({run.config['train']['epochs']} epochs)")
        self._listener.started(run)

    def reported(self, run: PlannedRun, metrics: Mapping[str, Any]) -> None:
        shown = [f"epoch {metrics['epoch']}", f"loss {metrics['train/loss/total']:.4g}"]
        ranking = Ranking.of(run.config["run"])
        if ranking.metric in metrics:
            shown.append(measured("validation", ranking.name, metrics[ranking.metric]))
        weights = [f"{key.rpartition('/')[2]} {value:.3g}" for key, value in metrics.items() if "/weight/" in key]
        say(", ".join(shown) + (f"; weights: {', '.join(weights)}" if weights else ""))
        self._listener.reported(run, metrics)

    def ended(self, run: PlannedRun, result: Mapping[str, Any]) -> None:
        self._listener.ended(run, result)


def _print_result(result: Mapping[str, Any], outputs: Outputs, run: PlannedRun) -> None:
    for split in ("validation", "test"):
        metrics = {name: value for name, value in (result.get(split) or {}).items() if not is_of_one_class(name)}
        if metrics:
            say(f"{split}: " + ", ".join(f"{name} {value:.2f}" for name, value in metrics.items()))
    say(f"Student: {outputs.run_directory(run.key)}/student.pt")
    say(f"Open the MLflow UI: distillery ui {outputs.name}")
