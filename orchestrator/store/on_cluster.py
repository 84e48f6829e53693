"""Measures for the target store, and fills it, on the machines where the runs will run."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from orchestrator.demand import Demand
from orchestrator.duration import duration
from orchestrator.gpu_share import Memory, measure_memory
from orchestrator.hosts.filling_host import FillingHost
from orchestrator.store.filling import FillJob, fill
from orchestrator.store.measurement import measure

log = logging.getLogger(__name__)

SECONDS_BETWEEN_LINES = 10.0


class ClusterWork:
    """Runs the store's work as Ray tasks, each with the resources of one worker of a run.

    Args:
        demand: what a run needs.
    """

    def __init__(self, demand: Demand) -> None:
        self._demand = demand

    def measure(self, config: Mapping[str, Any]) -> Mapping[str, Any]:
        """Measure what asking, keeping and reading cost; see :func:`orchestrator.store.measurement.measure`."""
        import ray

        measured: Mapping[str, Any] = ray.get(self._task(_measure).remote(config, self._demand))
        return measured

    def measure_memory(self, configs: Sequence[Mapping[str, Any]]) -> list[Memory]:
        """See what runs take of a GPU; see :func:`orchestrator.gpu_share.measure_memory`."""
        import ray

        task = self._task(_measure_memory)
        found: list[Memory] = ray.get([task.options(max_calls=1).remote(config, self._demand) for config in configs])
        return found

    def fill(self, jobs: Sequence[FillJob], say: Callable[[str], None]) -> None:
        """Fill the store in parallel and say how far it is.

        What goes wrong is said, and no more: a run asks its teacher for whatever the store lacks.
        """
        import ray

        task = self._task(_fill)
        num_views = sum(len(job.epochs) for job in jobs)
        progress = FillProgress(num_views, say)
        waiting = {task.remote(job.to_dict(), self._demand): job for job in jobs}
        with _cancelled_at_exit(waiting):
            while waiting:
                ended, _ = ray.wait(list(waiting), num_returns=1)
                job = waiting.pop(ended[0])
                try:
                    progress.add(len(job.epochs), ray.get(ended[0]))
                except ray.exceptions.RayError as error:
                    say(f"the target store: {_reason(error)}; runs ask the teacher for what is missing")
        progress.end()

    def _task(self, function: Callable[..., Any]) -> Any:
        import ray

        resources = self._demand.resources_per_worker()
        return ray.remote(function).options(num_cpus=resources["CPU"], num_gpus=resources.get("GPU", 0), max_retries=1)


class FillProgress:
    """Says how far the filling of the store is, every few seconds.

    Args:
        num_views: how many there are.
        say: prints one line.
        clock: seconds, never going back.
    """

    def __init__(self, num_views: int, say: Callable[[str], None], clock: Callable[[], float] = time.monotonic) -> None:
        self._num_views = num_views
        self._say = say
        self._clock = clock
        self._begun = self._said = clock()
        self._done = self._asked = 0

    def add(self, num_views: int, num_asked: int) -> None:
        """Note views that are stored, and for how many images the teacher was asked for them."""
        self._done += num_views
        self._asked += num_asked
        if self._done < self._num_views and self._clock() - self._said >= SECONDS_BETWEEN_LINES:
            self._said = self._clock()
            left = (self._said - self._begun) * (self._num_views - self._done) / self._done
            bar = "#" * round(20 * self._done / self._num_views)
            self._say(f"targets [{bar:<20}] {self._done} of {self._num_views} views, about {duration(left)} left")

    def end(self) -> None:
        """Say what was done, if anything was."""
        if self._asked:
            took = duration(self._clock() - self._begun)
            self._say(f"targets stored: {self._done} views, {self._asked:,} images asked in {took}")
        elif self._done:
            self._say(f"targets reused: all {self._done} views were stored already")


@contextmanager
def _cancelled_at_exit(waiting: Mapping[Any, FillJob]) -> Iterator[None]:
    """Cancel what is still under way, after an interrupt for instance."""
    import ray

    try:
        yield
    finally:
        for reference in waiting:
            ray.cancel(reference, force=True)


def _measure(config: Mapping[str, Any], demand: Demand) -> dict[str, Any]:
    return measure(config, FillingHost(cpus_per_worker=demand.cpus_per_worker, workers=demand.workers))


def _measure_memory(config: Mapping[str, Any], demand: Demand) -> Memory:
    return measure_memory(config, FillingHost(cpus_per_worker=demand.cpus_per_worker, workers=demand.workers))


def _fill(payload: Mapping[str, Any], demand: Demand) -> int:
    return fill(payload, FillingHost(cpus_per_worker=demand.cpus_per_worker, workers=demand.workers))


def _reason(error: Exception) -> str:
    cause = getattr(error, "cause", None) or error
    return str(cause).strip().splitlines()[-1] if str(cause).strip() else type(cause).__name__
