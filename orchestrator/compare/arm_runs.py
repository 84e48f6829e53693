"""The runs of one arm, and what became of them."""

from __future__ import annotations

from dataclasses import dataclass

from orchestrator.compare.arm import Arm
from orchestrator.compare.metric import Metric
from orchestrator.compare.run_record import RunRecord

COMPLETE, MISSING, FAILED, STOPPED = "complete", "missing", "failed", "stopped"


@dataclass(frozen=True)
class ArmRuns:
    """An arm with its ended runs.

    Attributes:
        arm: the arm.
        finished: the finished runs that have the metric, by seed.
        stopped: the runs that the scheduler stopped, by seed.
        failed: the reason of each failed run, by its seed.
        missing: seeds without a record.
    """

    arm: Arm
    finished: tuple[RunRecord, ...]
    stopped: tuple[RunRecord, ...]
    failed: dict[int, str]
    missing: tuple[int, ...]

    @classmethod
    def of(cls, arm: Arm, records: list[RunRecord], *, metric: Metric, seeds: tuple[int, ...]) -> ArmRuns:
        """Sort the records of an arm by what became of them; ``seeds`` are those that it should have."""
        finished, stopped, failed = [], [], {}
        for record in sorted(records, key=lambda item: item.seed):
            if record.status == "failed":
                failed[record.seed] = str(record.result.get("reason") or "no reason recorded")
            elif record.status == "stopped":
                stopped.append(record)
            elif metric.of_run(record) is None:
                failed[record.seed] = f"finished without a finite {metric.label}"
            else:
                finished.append(record)
        missing = tuple(sorted(set(seeds) - {record.seed for record in records}))
        return cls(arm, tuple(finished), tuple(stopped), failed, missing)

    @property
    def state(self) -> str:
        """``complete``, or the worst that happened: ``stopped``, ``failed``, ``missing``."""
        if self.stopped:
            return STOPPED
        if self.failed:
            return FAILED
        return MISSING if self.missing else COMPLETE

    @property
    def is_compared(self) -> bool:
        """Whether the finished runs enter the comparison.

        An arm with a stopped or failed run stays out: what is left of it are the seeds that went well, which would
        flatter it. Seeds that have not run yet are no such selection. The student alone is needed by every other
        arm and stays with what it has.
        """
        return bool(self.finished) and (self.arm.is_alone or self.state in (COMPLETE, MISSING))

    @property
    def story(self) -> str:
        """What became of an arm that is not complete, in one line."""
        parts = [
            f"seed {run.seed} stopped by the scheduler after epoch {run.result.get('epochs', '?')}"
            for run in self.stopped
        ]
        parts += [f"seed {seed} failed: {reason}" for seed, reason in self.failed.items()]
        if self.missing:
            parts.append(f"no result yet for seed {', '.join(map(str, self.missing))}")
        if not self.is_compared:
            parts.append("left out of the comparison")
        return f"{self.arm.name}: {'; '.join(parts)}"
