"""Where a sweep gets its arms from."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from orchestrator.config.planned_run import PlannedRun


class Arms(Protocol):
    """The arms of a sweep, one after another; whoever chooses them may learn from how they did."""

    def next_arm(self) -> list[PlannedRun] | None:
        """Return the runs of the next arm, one a seed, or None when there are no more arms."""
        ...

    def tell(self, arm: str, mean_metric: float) -> None:
        """Hear of an arm that is complete: the mean of its seeds' last metric; NaN where a seed failed."""
        ...

    def stopped(self, arm: str) -> None:
        """Hear of an arm that was stopped early."""
        ...
