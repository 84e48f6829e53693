"""What a driver and its runs tell each other while Ray trains."""

from __future__ import annotations

from typing import Any

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy


class Mailbox:
    """Reports on their way to the driver, and the wish to stop on its way to a run; can be sent to any process.

    One small process without a CPU of its own, on the driver's node: it lives and dies with the driver. Needed where
    Ray has no channel itself: Train hands reports to its controller only, and neither Train nor Tune can ask a function
    to come to its end, they can only kill it.
    """

    def __init__(self) -> None:
        here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
        self._box: Any = ray.remote(_Box).options(num_cpus=0, scheduling_strategy=here).remote()

    def post(self, run: str, report: dict[str, Any]) -> None:
        """Leave a report of a run; returns once it is delivered."""
        ray.get(self._box.post.remote(run, report))

    def take(self, run: str) -> list[dict[str, Any]]:
        """Return the reports of a run since the last time, in order."""
        reports: list[dict[str, Any]] = ray.get(self._box.take.remote(run))
        return reports

    def ask_to_stop(self, run: str) -> None:
        """Ask a run to end after its epoch; returns once it can know."""
        ray.get(self._box.ask_to_stop.remote(run))

    def is_asked_to_stop(self, run: str) -> bool:
        """Whether a run was asked to end."""
        return bool(ray.get(self._box.is_asked_to_stop.remote(run)))

    def close(self) -> None:
        """End the process."""
        ray.kill(self._box)


class _Box:
    def __init__(self) -> None:
        self._reports: dict[str, list[dict[str, Any]]] = {}
        self._asked: set[str] = set()

    def post(self, run: str, report: dict[str, Any]) -> None:
        self._reports.setdefault(run, []).append(report)

    def take(self, run: str) -> list[dict[str, Any]]:
        return self._reports.pop(run, [])

    def ask_to_stop(self, run: str) -> None:
        self._asked.add(run)

    def is_asked_to_stop(self, run: str) -> bool:
        return run in self._asked
