"""The answer in two sentences."""

from __future__ import annotations

from orchestrator.compare.arm import Arm
from orchestrator.compare.comparison import Comparison
from orchestrator.compare.verdicts import HELPS, HURTS, UNDECIDED
from orchestrator.compare.wording import listed, mean_sd, signed

# A longer path set is named by what it leaves out.
MAX_CHARACTERS = 60
TEST_RANKS = "(protocol paper, ranked on TEST)"


def paths_sentence(comparison: Comparison) -> str:
    """Return ``Helps: a, b. Hurts: c. Undecided: d.``, the strongest path first.

    Paths that the sweep could not tell at all are named with the reason, and a single seed says why nothing is decided.
    """
    named = {
        word: [item.path for item in comparison.paths if item.verdict == word] for word in (HELPS, HURTS, UNDECIDED)
    }
    text = f"Helps: {listed(named[HELPS])}. Hurts: {listed(named[HURTS][::-1])}. Undecided: {listed(named[UNDECIDED])}."
    if comparison.undecidable:
        reasons = (f"{listed(paths)} ({reason})" for reason, paths in comparison.undecidable.items())
        text += f" Not decidable: {'; '.join(reasons)}."
    if comparison.noise is None and comparison.arms:
        text += " (Intervals need at least 2 seeds.)" if _single_seed(comparison) else " (No noise could be measured.)"
    return f"{text} {TEST_RANKS}" if comparison.metric.is_test else text


def best_sentence(comparison: Comparison) -> str:
    """Return the best arm with its interval, how it was chosen, and where the teacher stands."""
    best = comparison.best
    if best is None:
        return "Best arm: none, no arm with a path is complete."
    decimals = comparison.metric.decimals - 1
    name, unit = _in_words(comparison, best.runs.arm), comparison.metric.unit
    details = [_chosen(comparison)]
    if best.over_alone is None:
        gain = f"{comparison.metric.label} {mean_sd(best.mean, best.sd, decimals)}"
        details.append("no student alone to compare with")
    else:
        difference = comparison.metric.sign * best.over_alone.difference
        relation = "over" if difference > 0 else "against"
        gain = f"{signed(best.over_alone.difference, decimals)} {unit} {relation} the student alone"
        interval = best.over_alone.interval
        if interval is None:
            details.insert(0, "no interval from a single seed" if _single_seed(comparison) else "no interval")
        else:
            details.insert(0, f"95% interval {signed(interval[0], decimals)} to {signed(interval[1], decimals)}")
    reported = _reported(comparison, decimals)
    text = f"Best arm: {name}, {gain} ({', '.join(details)}{'; ' + reported if reported else ''})"
    if best.is_below:
        text += ": no arm came out above the student alone"
    return f"{text}. {TEST_RANKS}" if comparison.metric.is_test else f"{text}."


def _in_words(comparison: Comparison, arm: Arm) -> str:
    """The arm inside the sentence, such as ``adaptive with attention+soft_target (lr=0.1)``."""
    paths = "+".join(arm.paths)
    absent = [item.path for item in comparison.paths if item.path not in arm.paths]
    if len(paths) > MAX_CHARACTERS and len(absent) <= 2:
        paths = f"all paths but {' and '.join(absent)}" if absent else f"all {len(arm.paths)} paths"
    return f"{arm.aggregator} with {paths} ({arm.setting})" if arm.setting else f"{arm.aggregator} with {paths}"


def _single_seed(comparison: Comparison) -> bool:
    return max(arm.num_seeds for arm in comparison.arms) < 2


def _chosen(comparison: Comparison) -> str:
    """How the best arm was chosen: the more arms, the more its interval flatters it."""
    number = len(comparison.candidates)
    where = "TEST" if comparison.metric.is_test else "validation"
    if number == 1:
        return "the only arm"
    return f"chosen among {number} arms on {where}, so flattering"


def _reported(comparison: Comparison, decimals: int) -> str:
    """Test and teacher of the best arm, as far as known."""
    best = comparison.best
    if best is None:
        return ""
    parts = []
    if best.test_mean is not None:
        parts.append(f"test {mean_sd(best.test_mean, best.test_sd, decimals)}")
    teacher = best.teacher("test")
    if teacher is not None:
        parts.append(f"teacher {teacher:.{decimals}f}")
    return ", ".join(parts)
