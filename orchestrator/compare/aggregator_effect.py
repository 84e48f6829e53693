"""What one aggregator does against equal weights."""

from __future__ import annotations

from dataclasses import dataclass

from orchestrator.compare.estimate import Estimate
from orchestrator.compare.fit import Fit
from orchestrator.compare.verdicts import BETTER, WORSE, adjust, verdict


@dataclass(frozen=True)
class AggregatorEffect:
    """An aggregator against Equal, averaged over the path sets that both ran.

    Attributes:
        aggregator: label of the aggregator.
        verdict: ``better``, ``worse`` or ``undecided``.
        effect: the mean over the path sets.
        p_value: two-sided, after Holm's correction over the aggregators; None without a measured noise.
    """

    aggregator: str
    verdict: str
    effect: Estimate
    p_value: float | None


def aggregator_effects(fit: Fit, *, sign: int) -> tuple[AggregatorEffect, ...]:
    """Return every aggregator that shares a path set with Equal, the best first.

    Args:
        fit: the fitted runs.
        sign: 1 where larger values are better, -1 where smaller ones are.
    """
    pairs: dict[str, list[tuple[int, int]]] = {}
    for position, arm in enumerate(fit.design.arms):
        equal = fit.design.equal(arm)
        if equal is not None:
            pairs.setdefault(arm.aggregator, []).append((position, equal))
    estimates = {label: estimate for label in pairs if (estimate := fit.estimate(pairs[label])) is not None}
    adjusted = adjust(list(estimates.values()))
    effects = [
        AggregatorEffect(label, verdict(estimate, p_value, sign=sign, words=(BETTER, WORSE)), estimate, p_value)
        for (label, estimate), p_value in zip(estimates.items(), adjusted, strict=True)
    ]
    return tuple(sorted(effects, key=lambda item: (-sign * item.effect.difference, item.aggregator)))
