"""Stops whole arms: a rule for single trials, applied to the mean over the seeds."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from ray.tune.schedulers import FIFOScheduler, TrialScheduler

from orchestrator.arm_progress import ArmProgress
from orchestrator.hosts.messages import report_in
from orchestrator.roster import Roster

KEY = "key"
"""Where a trial's configuration holds the key of its run."""


class ArmScheduler(FIFOScheduler):
    """Lets one of Ray's own early-stopping schedulers judge arms instead of trials.

    The scheduler sees one trial an arm, whose metric at an epoch is the mean over the arm's seeds, once all of them
    have reported that epoch. Its verdict counts for all seeds: they are asked to end after the epoch they are in, so
    that each leaves a whole result; one that goes on regardless is cut short at the second report after that. Controls
    are never stopped, nor is a run after its last epoch. A run whose metric isn't finite is stopped at once and has
    failed, which Ray's schedulers don't do: ``NaN < cutoff`` is false.

    Args:
        roster: the runs that the searcher hands out.
        metric: name of the metric in the reports.
        rule: a Ray ``TrialScheduler`` that continues or stops, for results of ``epoch`` and ``metric``; None: no arm is
            stopped.
        ask_to_stop: asks the run of a key to end after its epoch.
    """

    def __init__(
        self,
        roster: Roster,
        *,
        metric: str,
        rule: Any,
        ask_to_stop: Callable[[str], None],
    ) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._roster = roster
        self._ranked_by = metric
        self._rule = rule
        self._ask_to_stop = ask_to_stop
        self._judged: dict[int, _Judged] = {}

    def on_trial_result(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> str:
        """Take in what a trial reports and say whether it goes on."""
        metrics = report_in(result)
        return TrialScheduler.CONTINUE if metrics is None else self._hear(trial.config[KEY], metrics)

    def replay(self, arm: ArmProgress) -> None:
        """Let the rule know an arm of an earlier session, without deciding on it again.

        The rest of an arm that was being stopped is asked to stop.
        """
        if self._rule is None or arm.is_control:
            return
        judged = self._of(arm)
        for epoch, mean in arm.means().items():
            self._verdict(judged, epoch, mean)
        if arm.was_stopped:
            self._stop(arm)

    def _hear(self, key: str, metrics: Mapping[str, Any]) -> str:
        value = metrics.get(self._ranked_by)
        if value is None:  # nothing is held out for validation, so that nothing can be ranked
            return TrialScheduler.CONTINUE
        if not math.isfinite(value):
            self._roster.fail(key, f"{self._ranked_by} is {value} after epoch {metrics['epoch']}")
            return TrialScheduler.STOP
        arm = self._roster.arm(key)
        arm.record(key, epoch=int(metrics["epoch"]), value=float(value))
        if self._rule is None or arm.is_control:
            return TrialScheduler.CONTINUE
        judged = self._of(arm)
        if judged.is_stopped:
            # The first report after the verdict may have been on its way; then the run looks whether it should stop.
            judged.reports_since[key] = judged.reports_since.get(key, 0) + 1
            return TrialScheduler.STOP if judged.reports_since[key] > 1 else TrialScheduler.CONTINUE
        new = {epoch: mean for epoch, mean in arm.means().items() if epoch not in judged.epochs}
        for epoch, mean in new.items():
            if self._verdict(judged, epoch, mean) == TrialScheduler.STOP and epoch < arm.num_epochs:
                self._stop(arm)
                break
        return TrialScheduler.CONTINUE

    def _verdict(self, judged: _Judged, epoch: int, mean: float) -> Any:
        judged.epochs.add(epoch)
        return self._rule.on_trial_result(None, judged.trial, {"epoch": epoch, self._ranked_by: mean})

    def _stop(self, arm: ArmProgress) -> None:
        self._of(arm).is_stopped = True
        for run in arm.runs:
            self._ask_to_stop(run.key)

    def _of(self, arm: ArmProgress) -> _Judged:
        if id(arm) not in self._judged:
            trial = _ArmTrial(trial_id=f"arm {len(self._judged)}")
            self._judged[id(arm)] = _Judged(trial, set(), {})
            self._rule.on_trial_add(None, trial)
        return self._judged[id(arm)]


@dataclass(frozen=True)
class _ArmTrial:
    """All that Ray's rules ask of a trial: an identity."""

    trial_id: str


@dataclass
class _Judged:
    trial: _ArmTrial
    epochs: set[int]
    reports_since: dict[str, int]
    is_stopped: bool = False
