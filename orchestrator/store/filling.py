"""Fills the target store, view by view, as work for any process of a cluster."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from distill.host import Host
from distill.targets import answer_column, path_column
from orchestrator.job import Job
from orchestrator.preparation import prepare
from orchestrator.store.plan import StorePlan


@dataclass(frozen=True)
class FillJob:
    """Some views of one group.

    Attributes:
        job: as of a run with all of the group's stored paths.
        epochs: the first epochs that show these views.
        answers: whether the teacher is asked for its answers on the other splits, too.
    """

    job: Job
    epochs: tuple[int, ...]
    answers: bool

    def to_dict(self) -> dict[str, Any]:
        """Return plain data."""
        return {"job": self.job.to_dict(), "epochs": self.epochs, "answers": self.answers}


def fill_jobs(
    plan: StorePlan, *, num_places: int, teacher_of: Callable[[Mapping[str, Any]], str | None]
) -> list[FillJob]:
    """Share the views of all groups out into jobs: enough of them to keep all places busy, no more than views.

    Args:
        plan: what is stored.
        num_places: jobs that can run at once.
        teacher_of: returns where the teacher of a configuration is stored.
    """
    jobs = []
    for group in plan.groups:
        stored = plan.stored(group)
        if not stored:
            continue
        config = {**group.config, "paths": {name: group.config["paths"][name] for name in stored}}
        job = Job(
            config=config,
            config_hash="",
            directory="",
            teacher=teacher_of(config),
            store=plan.for_paths(config["paths"]),
        )
        views = range(group.num_views)
        num_jobs = min(len(views), max(1, 2 * num_places))
        shares = [tuple(views[start::num_jobs]) for start in range(num_jobs)]
        jobs += [FillJob(job, share, answers=number == 0) for number, share in enumerate(shares)]
    return jobs


def fill(payload: Mapping[str, Any], host: Host) -> int:
    """Ask the teacher for the views of one job and store what it says, as far as it is not there already.

    Args:
        payload: a :class:`FillJob` as plain data.
        host: where this runs.

    Returns:
        The number of images for which the teacher was asked.

    Raises:
        StoreRangeError: a target exceeds what half precision can hold.
        OSError: the store cannot be written.
    """
    prepared = prepare(Job.from_dict(payload["job"]), host)
    stored = prepared.stored
    assert stored is not None
    distiller, loaders = prepared.distiller, prepared.loaders
    columns = [path_column(name, distiller.path(name)) for name in distiller.layers]
    if payload["answers"] and distiller.task.compares_answers:
        for loader in (loaders.validation, loaders.test):
            if loader is not None:
                stored.fill([answer_column(distiller.task)], loader, 0, precision="float32")
    for epoch in payload["epochs"]:
        stored.fill(columns, loaders.train, epoch, precision=distiller.precision)
    return stored.num_asked
