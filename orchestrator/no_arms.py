"""The proposer of a fixed list of runs."""

from __future__ import annotations

from orchestrator.config import PlannedRun


class NoArms:
    """Proposes nothing: what runs is given beforehand."""

    def next_arm(self) -> list[PlannedRun] | None:
        """Return ``None``."""
        return None

    def tell(self, arm: str, mean_metric: float) -> None:
        """Learn nothing."""

    def stopped(self, arm: str) -> None:
        """Learn nothing."""
