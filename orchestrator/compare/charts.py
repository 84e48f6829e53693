"""Draws all arms at once: the map of differences and the metric against cost."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from orchestrator.compare.arm_summary import ArmSummary
from orchestrator.compare.comparison import Comparison
from orchestrator.compare.palette import INK, MUTED, SERIES, SHAPES, STYLE, bulk
from orchestrator.compare.path_labels import PathLabels
from orchestrator.compare.wording import signed

if TYPE_CHECKING:
    from matplotlib.axes import Axes

POINTS = int(STYLE["font.size"])
MAX_SETS = 32


def heatmap(comparison: Comparison) -> Figure | None:
    """Draw the difference to the student alone over path set x aggregator; None without any.

    White is the student alone, blue above, red below, over the same distance on both sides: when every arm is above,
    only blues appear. Where a sweep varies more than that, a cell is the mean over the other settings.
    """
    table, sets, aggregators = _differences(comparison)
    if not sets or not aggregators:
        return None
    known = table[~np.isnan(table)]
    reach = max(1e-9, *(abs(end) for end in bulk(known.tolist())))
    labels = PathLabels((item.path for item in comparison.paths), sets, width=26)
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(5.6, 1.5 + 0.32 * len(sets)), layout="constrained")
        axes = figure.add_subplot()
        colors = mpl.colormaps["RdBu"] if comparison.metric.higher_is_better else mpl.colormaps["RdBu_r"]
        norm = mpl.colors.Normalize(-reach, reach, clip=True)
        # Cells as rectangles stay vectors; imshow would embed a bitmap.
        axes.pcolormesh(np.ma.masked_invalid(table), cmap=colors, norm=norm, edgecolors="white", linewidth=1.5)
        for (row, column), value in np.ndenumerate(table):
            if np.isnan(value):
                continue
            axes.text(
                column + 0.5, row + 0.5, signed(value, comparison.metric.decimals), ha="center", va="center",
                fontsize=POINTS - 1, color=_ink_on(colors(norm(value))),
                fontweight="bold" if value == _best(known, comparison) else None,
            )  # fmt: skip
        axes.set_xticks(np.arange(len(aggregators)) + 0.5, aggregators, rotation=20 if len(aggregators) > 4 else 0)
        axes.set_yticks(np.arange(len(sets)) + 0.5, [labels[names] for names in sets])
        axes.invert_yaxis()
        axes.tick_params(length=0, labelsize=POINTS - 1)
        axes.spines[:].set_visible(False)
        axes.set_title("Difference to the student alone", loc="left", fontweight="bold", fontsize=POINTS + 1)
        notes = ["white = the student alone", *labels.legend]
        if float(np.abs(known).max()) > reach:
            notes[0] += f"; beyond {signed(reach, comparison.metric.decimals)[1:]} no darker"
        axes.set_xlabel("\n".join(_short(note) for note in notes), fontsize=POINTS - 2, color=MUTED, loc="left")
    return figure


def cost(comparison: Comparison) -> Figure | None:
    """Draw every arm's metric over its minutes with the line of what no cheaper arm beats; None without minutes."""
    arms = [arm for arm in comparison.arms if arm.minutes is not None]
    if not arms:
        return None
    low, high = bulk([arm.mean for arm in arms])
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(5.6, 4.2), layout="constrained")
        axes = figure.add_subplot()
        for number, label in enumerate(dict.fromkeys(arm.runs.arm.aggregator for arm in arms)):
            members = [arm for arm in arms if arm.runs.arm.aggregator == label]
            style: dict[str, Any] = {"marker": SHAPES[number % len(SHAPES)], "color": SERIES[number % len(SERIES)]}
            name = label
            if members[0].runs.arm.is_alone:
                style, name = {"marker": "*", "color": INK, "markersize": 13}, "student alone"
            inside = [arm for arm in members if low <= arm.mean <= high]
            axes.plot(
                [arm.minutes or 0.0 for arm in inside], [arm.mean for arm in inside], linestyle="", label=name, **style
            )
        _front(axes, arms, comparison)
        hidden = sum(not low <= arm.mean <= high for arm in arms)
        room = 0.08 * ((high - low) or 1.0)
        axes.set_ylim(low - room, high + room)
        beyond = f"; {hidden} arms lie outside the picture" if hidden else ""
        axes.set_xlabel(f"minutes of a run{beyond}")
        axes.set_ylabel("TEST " + comparison.metric.words if comparison.metric.is_test else comparison.metric.label)
        axes.set_title("What the time buys", loc="left", fontweight="bold", fontsize=POINTS + 1)
        axes.margins(x=0.06)
        figure.legend(loc="outside lower center", ncols=3, frameon=False, fontsize=POINTS - 1)
    return figure


def _front(axes: Axes, arms: list[ArmSummary], comparison: Comparison) -> None:
    """Step along the arms that no arm of less time beats."""
    sign = comparison.metric.sign
    minutes: list[float] = []
    values: list[float] = []
    for arm in sorted(arms, key=lambda arm: (arm.minutes or 0.0, -sign * arm.mean)):
        if not values or sign * arm.mean > sign * values[-1]:
            minutes.append(arm.minutes or 0.0)
            values.append(arm.mean)
    slowest = max(arm.minutes or 0.0 for arm in arms)
    axes.step(
        [*minutes, slowest], [*values, values[-1]], where="post", color=MUTED, linewidth=1, linestyle="--", zorder=0
    )


def _differences(
    comparison: Comparison,
) -> tuple[NDArray[np.float64], list[tuple[str, ...]], list[str]]:
    """Return ``[path set, aggregator]`` with the path sets from small to large and the best aggregator first."""
    cells: dict[tuple[tuple[str, ...], str], list[float]] = {}
    for arm in comparison.arms:
        if arm.over_alone is not None:
            shape = arm.runs.arm
            cells.setdefault((shape.paths, shape.aggregator), []).append(arm.over_alone.difference)
    sets = sorted({names for names, _ in cells}, key=lambda names: (len(names), names))[:MAX_SETS]
    means = {key: float(np.mean(values)) for key, values in cells.items()}
    by_aggregator: dict[str, list[float]] = {}
    for (_, label), value in means.items():
        by_aggregator.setdefault(label, []).append(value)
    sign = comparison.metric.sign
    aggregators = sorted(by_aggregator, key=lambda label: -sign * float(np.median(by_aggregator[label])))
    table = np.array([[means.get((names, label), np.nan) for label in aggregators] for names in sets])
    return table, sets, aggregators


def _best(known: NDArray[np.float64], comparison: Comparison) -> float:
    return float(known.max() if comparison.metric.higher_is_better else known.min())


def _ink_on(color: tuple[float, float, float, float]) -> str:
    """White or dark text, whichever has more contrast on ``color`` by WCAG's relative luminance."""
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in color[:3]]
    luminance = 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
    ink_luminance = 0.017  # of INK
    return "white" if 1.05 / (luminance + 0.05) > (luminance + 0.05) / (ink_luminance + 0.05) else INK


def _short(note: str, limit: int = 56) -> str:
    return note if len(note) <= limit else f"{note[: limit - 3]}..."
