"""One row of the table: what an arm reached."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from orchestrator.compare.arm_runs import ArmRuns
from orchestrator.compare.estimate import Estimate
from orchestrator.compare.metric import Metric


@dataclass(frozen=True)
class ArmSummary:
    """An arm's numbers over its finished seeds.

    Attributes:
        runs: the arm and its runs.
        metric: what ranks.
        over_alone: paired difference to the student alone; None for the student alone, or where there is none.
        over_equal: paired difference to Equal with the same paths; None for Equal itself, or where it was not run.
        over_reference: paired difference to the arm that was named for it; None for that arm, where none was, or where
            the runs cannot tell it.
        is_reference: whether this is the arm that was named.
        block: number of the block: arms with the same student alone.
    """

    runs: ArmRuns
    metric: Metric
    over_alone: Estimate | None
    over_equal: Estimate | None
    over_reference: Estimate | None = None
    is_reference: bool = False
    block: int = 0

    @property
    def num_seeds(self) -> int:
        """How many seeds finished."""
        return len(self.runs.finished)

    @property
    def values(self) -> tuple[float, ...]:
        """The ranking metric of each finished run, by seed."""
        return tuple(value for run in self.runs.finished if (value := self.metric.of_run(run)) is not None)

    @property
    def mean(self) -> float:
        """Mean of the ranking metric over the seeds."""
        return float(np.mean(self.values))

    @property
    def sd(self) -> float | None:
        """Standard deviation of the ranking metric over the seeds; None for a single seed."""
        return _sd(self.values)

    @property
    def test_values(self) -> tuple[float, ...]:
        """The metric on the test images of each run that has it: reported, never ranked by."""
        found = (run.measured("test", self.metric.name) for run in self.runs.finished)
        return tuple(value for value in found if value is not None)

    @property
    def test_mean(self) -> float | None:
        """Mean of the metric on the test images."""
        return float(np.mean(self.test_values)) if self.test_values else None

    @property
    def test_sd(self) -> float | None:
        """Standard deviation on the test images; None for a single seed."""
        return _sd(self.test_values)

    @property
    def minutes(self) -> float | None:
        """Mean minutes of a run."""
        found = [run.minutes for run in self.runs.finished if run.minutes is not None]
        return float(np.mean(found)) if found else None

    def teacher(self, split: str) -> float | None:
        """Return the mean of the metric of the arm's teacher on ``split``; None without a teacher."""
        found = [value for run in self.runs.finished if (value := run.teacher(split, self.metric.name)) is not None]
        return float(np.mean(found)) if found else None

    @property
    def is_below(self) -> bool:
        """Whether the arm is below the student alone."""
        return self.over_alone is not None and self.metric.sign * self.over_alone.difference < 0

    @property
    def is_surely_below(self) -> bool:
        """Whether even the whole interval is below the student alone."""
        interval = self.over_alone.interval if self.over_alone is not None else None
        return interval is not None and max(self.metric.sign * end for end in interval) < 0


def _sd(values: tuple[float, ...]) -> float | None:
    return float(np.std(values, ddof=1)) if len(values) > 1 else None
