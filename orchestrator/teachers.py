"""The teachers of a sweep or run: made where they are missing, before any student starts."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from itertools import product
from typing import Any

from orchestrator.config import Experiment, UserError
from orchestrator.config.arm import Arm
from orchestrator.config.design import Design
from orchestrator.config.interval import Interval
from orchestrator.config.planned_run import PlannedRun
from orchestrator.job import Job
from orchestrator.metric_names import measured
from orchestrator.ranking import Ranking
from orchestrator.run_listener import RunListener
from orchestrator.say import say
from orchestrator.storage import Storage
from orchestrator.teaching import FOLDER, is_ready, load_result, teacher_job, teacher_run
from orchestrator.tracking import SweepLog

log = logging.getLogger(__name__)

PRODUCES_TEACHER = ("teacher", "data", "task")
"""The sections that a teacher's weights depend on."""

RunJobs = Callable[[Mapping[str, PlannedRun], Mapping[str, Job], RunListener], None]
"""Runs jobs by key, each with its planned run, and tells the listener."""


class TeacherError(RuntimeError):
    """A teacher could not be made; nothing that needs it can run."""


class TeacherListener:
    """Hears of the teachers' runs.

    Args:
        mirror: MLflow's mirror; ``None``: nobody is told.
        say: prints one line for the user.
    """

    def __init__(self, mirror: SweepLog | None, say: Callable[[str], None]) -> None:
        self._mirror = mirror
        self._say = say
        self.failures: list[str] = []

    def started(self, run: PlannedRun) -> None:
        """Open the run in MLflow."""
        self._say(f"training the {run.name} ({run.config['train']['epochs']} epochs)")
        if self._mirror is not None:
            self._mirror.start_teacher(run.key, run.name, seed=run.seed, config=run.config)

    def reported(self, run: PlannedRun, metrics: Mapping[str, Any]) -> None:
        """Note one epoch."""
        ranking = Ranking.of(run.config["run"])
        value = metrics.get(ranking.metric)
        reached = "" if value is None else f", {measured('validation', ranking.name, value)}"
        self._say(f"  {run.name}: epoch {metrics['epoch']}{reached}")
        if self._mirror is not None:
            self._mirror.epoch(run.key, metrics)

    def ended(self, run: PlannedRun, result: Mapping[str, Any]) -> None:
        """Note how it ended."""
        if result["status"] != "finished":
            self.failures.append(f"{run.name}: {result.get('reason', result['status'])}")
        if self._mirror is not None:
            self._mirror.end_teacher(run.key, result)


def prepare_teachers(
    configs: Iterable[Mapping[str, Any]],
    storage: Storage,
    *,
    run_jobs: RunJobs,
    mirror: SweepLog | None,
    say: Callable[[str], None],
) -> dict[str, dict[str, Any]]:
    """Make every teacher that these runs need and that is not stored yet.

    Args:
        configs: resolved configurations of the runs.
        storage: the root of all outputs.
        run_jobs: runs the missing ones.
        mirror: MLflow's mirror; ``None``: it is not told.
        say: prints one line for the user.

    Returns:
        The stored result of each teacher, by fingerprint.

    Raises:
        TeacherError: one could not be made.
    """
    jobs: dict[str, Job] = {}
    runs: dict[str, PlannedRun] = {}
    for config in configs:
        if config["teacher"] is not None:
            run = teacher_run(config)
            jobs.setdefault(run.key, teacher_job(config, storage))
            runs.setdefault(run.key, run)
    missing = {key: job for key, job in jobs.items() if not is_ready(job)}
    listener = TeacherListener(mirror, say)
    if missing:
        run_jobs({key: runs[key] for key in missing}, missing, listener)
    if listener.failures:
        raise TeacherError("the teacher could not be made: " + "; ".join(listener.failures))
    results = {}
    for key, job in jobs.items():
        result = load_result(job.directory)
        results[job.config_hash] = result
        what = "trained" if key in missing else "reused"
        reached = _reached(result, Ranking.of(job.config["run"]).name)
        say(f"{runs[key].name} {what} ({job.config_hash}){reached}")
    return results


def teacher_branches(design: Design) -> list[dict[str, Any]]:
    """Return a configuration for each teacher that the runs of a design can need.

    Raises:
        UserError: the search draws what a teacher depends on from a range, so that every arm would need one of its own.
    """
    varied = {key: domain for key, domain in design.domains.items() if key.partition(".")[0] in PRODUCES_TEACHER}
    ranges = [key for key, domain in varied.items() if isinstance(domain, Interval)]
    if ranges:
        raise UserError(
            [
                f"search.{key}: the teacher depends on it, so a range would need a teacher an arm; list values"
                for key in ranges
            ]
        )
    arms = design.arms()
    branches = [
        Arm({**arm.choices, **dict(zip(varied, choices, strict=True))})
        for arm in arms[:1]
        for choices in product(*(domain.choices for domain in varied.values()))
    ]
    return [design.runs(arm)[0].config for arm in branches]


def _reached(result: Mapping[str, Any], metric: str) -> str:
    """Return what a teacher reached, as the end of a sentence; empty for a metric that only students have."""
    values = {split: (result[split] or {}).get(metric) for split in ("validation", "test")}
    parts = [measured(split, metric, value) for split, value in values.items() if value is not None]
    return f": {', '.join(parts)}" if parts else ""


def teach(experiment: Experiment, *, address: str | None) -> int:
    """Make the teacher of a file, or each teacher of its search, unless it is stored already.

    Returns:
        0; 1 where one could not be made.

    Raises:
        UserError: the file has no teacher.
    """
    from orchestrator.training import run_jobs, run_with_host

    if experiment.teacher is None:
        raise UserError(["teacher: is missing; 'teach' makes the teacher that the file describes"])
    configs = teacher_branches(Design(experiment))
    storage = Storage(experiment.run.storage)

    def work(run_job: Any) -> dict[str, Any]:
        return prepare_teachers(configs, storage, run_jobs=partial(run_jobs, run_job), mirror=None, say=say)

    results = run_with_host(experiment, work, address=address)
    for fingerprint in results:
        say(f"{storage.child(FOLDER, fingerprint).uri}")
    return 0
