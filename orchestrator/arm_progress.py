"""How far the seeds of an arm have come, and what that says about the arm."""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import fmean
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from orchestrator.config.planned_run import PlannedRun


class ArmProgress:
    """The runs of one arm, one a seed, and what they have reported.

    Args:
        runs: the runs of the arm, at least one.
    """

    def __init__(self, runs: Sequence[PlannedRun]) -> None:
        self.runs = tuple(runs)
        self.name = runs[0].arm
        self.is_control = runs[0].kind == "student"
        self._values: dict[str, dict[int, float]] = {run.key: {} for run in runs}
        self._statuses: dict[str, str] = {}

    @property
    def num_epochs(self) -> float:
        """Epochs after which the runs end by themselves; infinite where their configuration doesn't say."""
        epochs = self.runs[0].config.get("train", {}).get("epochs")
        return math.inf if epochs is None else int(epochs)

    @property
    def has_ended(self) -> bool:
        """Whether all runs have ended."""
        return len(self._statuses) == len(self.runs)

    @property
    def was_stopped(self) -> bool:
        """Whether a run of the arm was stopped early."""
        return "stopped" in self._statuses.values()

    def record(self, key: str, *, epoch: int, value: float) -> None:
        """Note the metric of a run after an epoch; a retried run may note an epoch again."""
        self._values[key][epoch] = value

    def end(self, key: str, status: str) -> None:
        """Note that a run has ended, and how."""
        self._statuses[key] = status

    def means(self) -> dict[int, float]:
        """Return the mean over the seeds, by epoch, of those epochs that all seeds have reported.

        A failed seed is left out, so that the others can still be judged.
        """
        judged = [self._values[run.key] for run in self.runs if self._statuses.get(run.key) != "failed"]
        if not judged:
            return {}
        common = set(judged[0]).intersection(*judged[1:])
        return {epoch: fmean(values[epoch] for values in judged) for epoch in sorted(common)}

    def outcome(self) -> float:
        """Return the mean of the seeds' last values, or NaN unless every seed has finished and reported."""
        if any(self._statuses.get(run.key) != "finished" or not self._values[run.key] for run in self.runs):
            return math.nan
        return fmean(values[max(values)] for values in self._values.values())
