"""Which runs a sweep has handed out, and how they stand."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from orchestrator.arm_progress import ArmProgress

if TYPE_CHECKING:
    from orchestrator.config.planned_run import PlannedRun


class Roster:
    """The runs of a sweep by key: the one place in which searcher, scheduler and driver look them up."""

    def __init__(self) -> None:
        self._runs: dict[str, PlannedRun] = {}
        self._arms: dict[str, ArmProgress] = {}
        self._results: dict[str, Mapping[str, Any]] = {}
        self._reasons: dict[str, str] = {}

    def add(self, runs: Sequence[PlannedRun]) -> ArmProgress:
        """Take in the runs of an arm.

        Raises:
            ValueError: a run is in the roster already.
        """
        arm = ArmProgress(runs)
        for run in runs:
            if run.key in self._runs:
                raise ValueError(f"sweep: run {run.name} ({run.key}) was planned twice")
            self._runs[run.key] = run
            self._arms[run.key] = arm
        return arm

    def run(self, key: str) -> PlannedRun:
        """Return the run of this key."""
        return self._runs[key]

    def arm(self, key: str) -> ArmProgress:
        """Return the arm that the run of this key belongs to."""
        return self._arms[key]

    def fail(self, key: str, reason: str) -> None:
        """Note why a run that is about to be cut short has failed."""
        self._reasons[key] = reason

    def end(self, key: str, result: Mapping[str, Any] | None) -> None:
        """Note the result of a run; one that was cut short has none, and failed if there is a reason to."""
        if result is None:
            reason = self._reasons.get(key)
            result = {"status": "stopped"} if reason is None else {"status": "failed", "reason": reason}
        self._results[key] = result
        self._arms[key].end(key, result["status"])

    def result(self, key: str) -> Mapping[str, Any]:
        """Return the result of a run that has ended."""
        return self._results[key]
