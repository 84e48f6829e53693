"""Arms on their way from what proposes them to what runs them."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

from orchestrator.config.arm import Arm
from orchestrator.config.arm_proposer import ArmProposer
from orchestrator.config.design import Design
from orchestrator.config.planned_run import PlannedRun


class ArmSource:
    """Turns proposed arms into planned runs, and what became of them into values.

    Args:
        design: makes an arm's runs.
        proposer: proposes arms.
        limit: most arms, those of earlier sessions included; ``None``: as many as are proposed.
        on_new: told of the assignment of each new arm before it runs, so that a later session knows it.
    """

    def __init__(
        self,
        design: Design,
        proposer: ArmProposer,
        *,
        limit: int | None = None,
        on_new: Callable[[Mapping[str, Any]], None],
    ) -> None:
        self._design = design
        self._proposer = proposer
        self._limit = limit
        self._on_new = on_new
        self._arms: dict[str, Arm] = {}

    def resume(self, assignment: Mapping[str, Any]) -> list[PlannedRun]:
        """Return the runs of an arm that an earlier session proposed; it is not proposed again."""
        arm = self._design.arm(assignment)
        self._arms[arm.name] = arm
        return self._design.runs(arm)

    def next_arm(self) -> list[PlannedRun] | None:
        """Return the runs of the next arm, one a seed, or ``None`` when there are no more arms."""
        while self._limit is None or len(self._arms) < self._limit:
            arm = self._proposer.propose()
            if arm is None:
                return None
            if arm.name not in self._arms:
                self._arms[arm.name] = arm
                self._on_new(self._design.assignment(arm))
                return self._design.runs(arm)
        return None

    def tell(self, arm: str, mean_metric: float) -> None:
        """Hear of an arm that is complete: the mean of its seeds' last metric; NaN where a seed failed."""
        self._proposer.tell(self._arms[arm], mean_metric if math.isfinite(mean_metric) else None)

    def stopped(self, arm: str) -> None:
        """Hear of an arm that was stopped early."""
        self._proposer.tell(self._arms[arm], None)
