"""Words for an effect, with Holm's correction for having asked several questions."""

from __future__ import annotations

from collections.abc import Sequence

from orchestrator.compare.estimate import LEVEL, Estimate

HELPS, HURTS, UNDECIDED, UNDECIDABLE = "helps", "hurts", "undecided", "not decidable"
BETTER, WORSE = "better", "worse"


def holm(p_values: Sequence[float]) -> list[float]:
    """Return p values adjusted for testing all of them (Holm 1979, a simple sequentially rejective procedure).

    Rejecting where the adjusted value is below 5% keeps the chance of any wrong rejection below 5%.
    """
    order = sorted(range(len(p_values)), key=lambda position: p_values[position])
    adjusted = [0.0] * len(p_values)
    largest = 0.0
    for rank, position in enumerate(order):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[position]))
        adjusted[position] = largest
    return adjusted


def adjust(estimates: Sequence[Estimate | None]) -> list[float | None]:
    """Return Holm's adjusted p value of each estimate; None where there is no p value to adjust."""
    p_values = [None if estimate is None else estimate.p_value for estimate in estimates]
    adjusted = iter(holm([value for value in p_values if value is not None]))
    return [None if value is None else next(adjusted) for value in p_values]


def verdict(estimate: Estimate, adjusted: float | None, *, sign: int, words: tuple[str, str] = (HELPS, HURTS)) -> str:
    """Return the word for an effect: one of ``words``, or undecided. Never "no effect", which no sweep can show.

    Args:
        estimate: the effect.
        adjusted: its p value after Holm's correction; None without a measured noise.
        sign: 1 where larger values are better, -1 where smaller ones are.
        words: the words for a good and for a bad effect.
    """
    if adjusted is None or 1 - adjusted <= LEVEL:
        return UNDECIDED
    return words[0] if sign * estimate.difference > 0 else words[1]
