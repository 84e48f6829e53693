"""The comparison as plain data: the numbers of the table and the report, unrounded."""

from __future__ import annotations

from typing import Any

from orchestrator.compare.arm_runs import ArmRuns
from orchestrator.compare.arm_summary import ArmSummary
from orchestrator.compare.comparison import Comparison
from orchestrator.compare.estimate import Estimate


def as_plain(comparison: Comparison) -> dict[str, Any]:
    """Return the comparison as data that JSON can hold; what was not measured is null."""
    metric, noise, best = comparison.metric, comparison.noise, comparison.best
    return {
        "experiment": comparison.experiment.name,
        "question": comparison.experiment.question,
        "protocol": comparison.experiment.protocol,
        "metric": metric.name,
        "instead_of": metric.instead_of,
        "ranked_on": metric.split,
        "higher_is_better": metric.higher_is_better,
        "sentences": list(comparison.sentences),
        "best": best.runs.arm.name if best is not None else None,
        "against": comparison.against,
        "num_candidates": len(comparison.candidates),
        "seeds": list(comparison.seeds),
        "num_records": comparison.num_records,
        "planned": comparison.experiment.planned,
        "noise": [
            {"label": group.label, "sd": group.sd, "dof": group.dof} for group in (noise.groups if noise else ())
        ],
        "arms": [_arm(arm) for arm in comparison.arms],
        "paths": [
            {
                "path": item.path,
                "verdict": item.verdict,
                "reason": item.reason,
                "effect": _estimate(item.effect),
                "add_one": _estimate(item.add_one),
                "leave_one_out": _estimate(item.leave_one_out),
                "shapley": _estimate(item.shapley),
                "p_value_holm": item.p_value,
                "smallest_decidable": item.smallest_decidable,
            }
            for item in comparison.paths
        ],
        "aggregators": [
            {
                "aggregator": item.aggregator,
                "verdict": item.verdict,
                "over_equal": _estimate(item.effect),
                "p_value_holm": item.p_value,
            }
            for item in comparison.aggregators
        ],
        "incomplete": [_incomplete(runs) for runs in comparison.incomplete],
        "cautions": list(comparison.cautions),
        "gains": dict(comparison.gains),
    }


def _estimate(estimate: Estimate | None) -> dict[str, Any] | None:
    if estimate is None:
        return None
    interval = estimate.interval
    return {
        "difference": estimate.difference,
        "low": interval[0] if interval is not None else None,
        "high": interval[1] if interval is not None else None,
        "standard_error": estimate.standard_error,
        "dof": estimate.dof,
        "p_value": estimate.p_value,
        "num_pairs": estimate.num_pairs,
    }


def _arm(arm: ArmSummary) -> dict[str, Any]:
    shape = arm.runs.arm
    return {
        "arm": shape.name,
        "aggregator": shape.aggregator,
        "paths": list(shape.paths),
        "context": dict(shape.context),
        "is_alone": shape.is_alone,
        "state": arm.runs.state,
        "num_seeds": arm.num_seeds,
        "mean": arm.mean,
        "sd": arm.sd,
        "over_alone": _estimate(arm.over_alone),
        "over_equal": _estimate(arm.over_equal),
        "over_reference": _estimate(arm.over_reference),
        "is_reference": arm.is_reference,
        "is_below_alone": arm.is_below,
        "test_mean": arm.test_mean,
        "test_sd": arm.test_sd,
        "teacher": arm.teacher(arm.metric.split),
        "teacher_test": arm.teacher("test"),
        "minutes": arm.minutes,
        "runs": [
            {"key": run.key, "seed": run.seed, "value": arm.metric.of_run(run), "run_id": run.run_id}
            for run in arm.runs.finished
        ],
    }


def _incomplete(runs: ArmRuns) -> dict[str, Any]:
    return {
        "arm": runs.arm.name,
        "state": runs.state,
        "is_compared": runs.is_compared,
        "finished_seeds": [run.seed for run in runs.finished],
        "stopped": {str(run.seed): run.result.get("epochs") for run in runs.stopped},
        "failed": {str(seed): reason for seed, reason in runs.failed.items()},
        "missing_seeds": list(runs.missing),
        "story": runs.story,
    }
