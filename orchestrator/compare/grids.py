"""The tables of a comparison as text cells."""

from __future__ import annotations

from orchestrator.compare.arm_summary import ArmSummary
from orchestrator.compare.comparison import Comparison
from orchestrator.compare.estimate import Estimate
from orchestrator.compare.grid import Grid, Row
from orchestrator.compare.path_labels import PathLabels
from orchestrator.compare.wording import mean_sd, with_interval

BEST, SURELY_BELOW, BELOW = "best", "BELOW", "below?"
REFERENCE = "over --against"


def arms_grid(comparison: Comparison, *, path_width: int, setting_width: int) -> Grid:
    """Return the table over aggregator x path set, block by block, the best arm first.

    Args:
        comparison: what to show.
        path_width: characters that a path set may take before it is abbreviated.
        setting_width: characters that the other varied keys may take before they are numbered.
    """
    metric = comparison.metric
    labels = PathLabels(
        (item.path for item in comparison.paths), (arm.runs.arm.paths for arm in comparison.arms), width=path_width
    )
    settings = _numbered(tuple(arm.runs.arm.setting for arm in comparison.arms), setting_width)
    ranked_on = "TEST (ranks)" if metric.is_test else "validation"
    rows = _teacher_rows(comparison)
    for number, block in enumerate(dict.fromkeys(arm.block for arm in comparison.arms)):
        members = [arm for arm in comparison.arms if arm.block == block]
        for position, arm in enumerate(members):
            mark = _mark(comparison, arm)
            cells = _cells(comparison, arm, labels[arm.runs.arm.paths], settings[arm.runs.arm.setting])
            rows.append(Row((*cells, mark), mark, starts_block=position == 0 and number > 0))
    notes = labels.legend + tuple(f"{short} = {plain}" for plain, short in settings.items() if short != plain)
    if any(row.mark in (SURELY_BELOW, BELOW) for row in rows):
        notes += (f"{SURELY_BELOW}: under the student alone with its whole interval; {BELOW}: under it, but undecided",)
    if comparison.against is not None:
        notes += (f"{REFERENCE}: over {comparison.against}",)
        if any(arm.over_reference is None and not arm.is_reference for arm in comparison.arms):
            notes += (f"{REFERENCE} is - where it cannot be told: the student alone is another, or no seed is shared",)
    header = (
        "aggregator",
        "paths",
        "setting",
        "n",
        ranked_on,
        "over the student alone",
        "over Equal" if comparison.against is None else REFERENCE,
        "test",
        "min",
        "",
    )
    return Grid(header, tuple(rows), frozenset({3, 4, 7, 8}), notes).without_empty_columns()


def paths_grid(comparison: Comparison) -> Grid:
    """Return the table of path effects: mean over all pairs, add-one, leave-one-out and Shapley value side by side."""
    decimals = comparison.metric.decimals
    rows = []
    for item in comparison.paths:
        smallest = f"{item.smallest_decidable:.{decimals}f}" if item.smallest_decidable is not None else ""
        effect = _or_dash(item.effect, decimals)
        pairs = str(item.effect.num_pairs) if item.effect is not None else "0"
        added, left = (_or_dash(estimate, decimals) for estimate in (item.add_one, item.leave_one_out))
        shapley = "" if item.shapley is None else with_interval(item.shapley, decimals)
        rows.append(Row((item.path, effect, pairs, added, left, shapley, smallest, item.verdict)))
    header = (
        "path",
        "effect of adding it",
        "pairs",
        "added to the student alone",
        "added to all others",
        "Shapley value",
        "decidable",
        "verdict",
    )
    notes = tuple(f"Not decidable: {', '.join(names)}; {reason}." for reason, names in comparison.undecidable.items())
    return Grid(header, tuple(rows), frozenset({2, 6}), notes).without_empty_columns()


def aggregators_grid(comparison: Comparison) -> Grid:
    """Return the table of aggregators against Equal over the path sets that both ran."""
    rows = [
        Row(
            (
                item.aggregator,
                with_interval(item.effect, comparison.metric.decimals),
                str(item.effect.num_pairs),
                item.verdict,
            )
        )
        for item in comparison.aggregators
    ]
    return Grid(("aggregator", "over Equal", "path sets", "verdict"), tuple(rows), frozenset({2}))


def method_notes(comparison: Comparison) -> tuple[str, ...]:
    """Return how the intervals were made and how much one run scatters."""
    notes = []
    metric, noise = comparison.metric, comparison.noise
    if noise is not None:
        groups = "; ".join(
            f"{group.label} {group.sd:.{metric.decimals}f} ({group.dof} degrees of freedom)" for group in noise.groups
        )
        notes.append(f"Noise of one run in {metric.unit} of {metric.label}: {groups}.".replace("in of", "in"))
        num_tested = sum(item.p_value is not None for item in comparison.paths)
        notes.append(
            "Differences are paired by seed; [95% interval], Student's t with the noise pooled over the arms. Verdicts "
            f"after Holm's correction over the {num_tested} paths tested."
        )
        if any(item.smallest_decidable is not None for item in comparison.paths):
            notes.append("Decidable: the smallest effect that four of five such sweeps would decide.")
    if metric.is_test:
        notes.append("Protocol paper: the TEST images rank; nothing was held out for validation.")
    return tuple(notes)


def _numbered(settings: tuple[str, ...], width: int) -> dict[str, str]:
    """Each setting to what the table calls it: itself, or a number where it is too long."""
    names: dict[str, str] = {}
    for setting in dict.fromkeys(settings):
        number = 1 + sum(name != plain for plain, name in names.items())
        names[setting] = setting if len(setting) <= width else f"setting {number}"
    return names


def _or_dash(estimate: Estimate | None, decimals: int) -> str:
    return with_interval(estimate, decimals) or "-"


def _mark(comparison: Comparison, arm: ArmSummary) -> str:
    if arm.is_surely_below:
        return SURELY_BELOW
    if arm.is_below:
        return BELOW
    return BEST if arm is comparison.best else ""


def _cells(comparison: Comparison, arm: ArmSummary, paths: str, setting: str) -> tuple[str, ...]:
    decimals = comparison.metric.decimals
    shape = arm.runs.arm
    expected = len(comparison.seeds)
    seeds = str(arm.num_seeds) if arm.num_seeds >= expected else f"{arm.num_seeds}/{expected}"
    return (
        "-" if shape.is_alone else shape.aggregator,
        "student alone" if shape.is_alone else paths,
        setting,
        seeds,
        mean_sd(arm.mean, arm.sd, decimals),
        "(reference)" if shape.is_alone else _or_dash(arm.over_alone, decimals),
        _beside(comparison, arm),
        "" if comparison.metric.is_test else mean_sd(arm.test_mean, arm.test_sd, decimals),
        _minutes(arm.minutes),
    )


def _beside(comparison: Comparison, arm: ArmSummary) -> str:
    """Return the difference to the arm that was asked for, or else to Equal."""
    decimals = comparison.metric.decimals
    if comparison.against is None:
        return with_interval(arm.over_equal, decimals)
    return "(reference)" if arm.is_reference else _or_dash(arm.over_reference, decimals)


def _minutes(minutes: float | None) -> str:
    if minutes is None:
        return ""
    return f"{minutes:.1f}" if minutes >= 1 else f"{minutes:.2f}"


def _teacher_rows(comparison: Comparison) -> list[Row]:
    """One row for each teacher: its numbers are the same for all arms that it taught."""
    decimals, split = comparison.metric.decimals, comparison.metric.split
    known: dict[tuple[str, str], None] = {}
    for arm in comparison.arms:
        ranked, test = arm.teacher(split), arm.teacher("test")
        if ranked is not None or test is not None:
            known[(mean_sd(ranked, None, decimals), mean_sd(test, None, decimals))] = None
    name = str(comparison.experiment.details.get("teacher_label") or "")
    return [
        Row(("teacher", name, "", "", ranked, "", "", "" if comparison.metric.is_test else test, "", ""))
        for ranked, test in known
    ]
