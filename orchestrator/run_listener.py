"""Who wants to know what happens to the runs of a sweep."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from orchestrator.config.planned_run import PlannedRun


class RunListener(Protocol):
    """Hears of each run, in the driver and in its main thread.

    A run is started once, reports once an epoch, and ends once: finished, stopped or failed. A run that is retried goes
    on reporting, possibly some epochs again; a run that is cut short by an interrupt doesn't end, and can be resumed.
    """

    def started(self, run: PlannedRun) -> None:
        """A run has got its place and begins."""
        ...

    def reported(self, run: PlannedRun, metrics: Mapping[str, Any]) -> None:
        """A run has finished an epoch."""
        ...

    def ended(self, run: PlannedRun, result: Mapping[str, Any]) -> None:
        """A run has ended; ``result`` holds at least ``status``, and ``reason`` where it failed."""
        ...
