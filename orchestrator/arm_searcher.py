"""Hands out the runs of a sweep to Ray Tune: controls first, then arm by arm."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ray.tune.search import Searcher

from orchestrator.arm_progress import ArmProgress
from orchestrator.arms import Arms
from orchestrator.hosts.messages import result_in
from orchestrator.past_run import PastRun
from orchestrator.roster import Roster

if TYPE_CHECKING:
    from orchestrator.config.planned_run import PlannedRun


class ArmSearcher(Searcher):
    """The one searcher of a sweep: a proposer names arms, Tune asks for runs.

    The proposer hears of an arm once all its seeds have ended. What an earlier session has done is handed out no more,
    but the proposer and the stopping rule hear of it as if it had just happened.

    Args:
        roster: where the runs are noted.
        first: runs to hand out before the proposer is asked: the controls, and sampled arms of an earlier session.
        proposer: names the arms.
        past: runs of an earlier session, by key.
        metric: name of the metric in their histories.
        replay: told of each arm of an earlier session, so that the stopping rule knows it.
        suggestion: makes what a trial is configured with out of a run.
    """

    def __init__(
        self,
        roster: Roster,
        *,
        first: Sequence[PlannedRun],
        proposer: Arms,
        past: Mapping[str, PastRun],
        metric: str,
        replay: Callable[[ArmProgress], None],
        suggestion: Callable[[PlannedRun], dict[str, Any]],
    ) -> None:
        super().__init__()
        self._roster = roster
        self._proposer = proposer
        self._past = past
        self._ranked_by = metric
        self._replay = replay
        self._suggestion = suggestion
        self._waiting: deque[PlannedRun] = deque()
        self._keys: dict[str, str] = {}
        self._first = _by_arm(first)
        self._has_more = True

    def suggest(self, trial_id: str) -> Any:
        """Return what the next trial is configured with, or ``FINISHED``."""
        while self._has_more and (not self._waiting or self._is_replaying()):
            self._draw()
        if not self._waiting:
            return str(Searcher.FINISHED)
        run = self._waiting.popleft()
        self._keys[trial_id] = run.key
        return self._suggestion(run)

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """Note how a run ended; tell the proposer when that completes its arm."""
        key = self._keys.pop(trial_id)
        # The reason of an error is known to Tune alone, who tells it to the driver's callback afterwards.
        ended = {"status": "failed"} if error else result_in(result or {})
        self._roster.end(key, ended)
        self._tell(self._roster.arm(key))

    def save(self, checkpoint_path: str) -> None:
        """Save nothing: a sweep is resumed from its own records, never from Ray's."""

    def restore(self, checkpoint_path: str) -> None:
        """Restore nothing."""

    def _is_replaying(self) -> bool:
        """Whether every run drawn so far was started before, so that the next arm may have been as well."""
        return bool(self._past) and all(run.key in self._past for run in self._waiting)

    def _draw(self) -> None:
        runs = self._first.popleft() if self._first else self._proposer.next_arm()
        if runs is None:
            self._has_more = False
            return
        arm = self._roster.add(runs)
        for run in runs:
            past = self._past.get(run.key)
            if past is None or past.result is None:
                self._waiting.append(run)
            if past is not None:
                self._take_over(arm, past)
        if any(run.key in self._past for run in runs):
            self._replay(arm)
            self._tell(arm)

    def _take_over(self, arm: ArmProgress, past: PastRun) -> None:
        for metrics in past.history:
            value = metrics.get(self._ranked_by)
            if value is not None:
                arm.record(past.key, epoch=int(metrics["epoch"]), value=float(value))
        if past.result is not None:
            self._roster.end(past.key, past.result)

    def _tell(self, arm: ArmProgress) -> None:
        if not arm.has_ended or arm.is_control:
            return
        if arm.was_stopped:
            self._proposer.stopped(arm.name)
        else:
            self._proposer.tell(arm.name, arm.outcome())


def _by_arm(runs: Sequence[PlannedRun]) -> deque[list[PlannedRun]]:
    arms: dict[str, list[PlannedRun]] = {}
    for run in runs:
        arms.setdefault(run.arm, []).append(run)
    return deque(arms.values())
