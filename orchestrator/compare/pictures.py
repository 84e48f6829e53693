"""Draws effects with their intervals: the cards for MLflow and the forests of the report."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine

from orchestrator.compare.comparison import Comparison
from orchestrator.compare.estimate import Estimate
from orchestrator.compare.palette import COLORS, INK, MARKERS, MUTED, OPEN, RULE, STYLE, bulk
from orchestrator.compare.verdicts import UNDECIDED
from orchestrator.compare.wording import signed, with_interval

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# MLflow fits a card's picture into a small square, so that only a square one in large letters reads there.
CARD_INCHES, CARD_DPI, CARD_POINTS, CARD_ROWS = 8.0, 110, 17, 8
FEW_ROWS = 5
"""With fewer effects than this, all are drawn whole."""


@dataclass(frozen=True)
class ForestRow:
    """One line of a forest plot: a name, its effect and the word for it."""

    label: str
    estimate: Estimate | None
    verdict: str


def path_rows(comparison: Comparison) -> list[ForestRow]:
    """Return a line for each path, the best first."""
    return [
        ForestRow(item.path, item.effect, item.verdict if item.reason is None else f"{item.verdict}: {item.reason}")
        for item in comparison.paths
    ]


def aggregator_rows(comparison: Comparison) -> list[ForestRow]:
    """Return a line for each aggregator that can be held against Equal, the best first."""
    return [ForestRow(item.aggregator, item.effect, item.verdict) for item in comparison.aggregators]


def path_card(comparison: Comparison) -> Figure | None:
    """Draw the path effects as a square picture for MLflow; None without paths."""
    rows = path_rows(comparison)
    return _card(rows, "What adding a path does", comparison) if rows else None


def aggregator_card(comparison: Comparison) -> Figure | None:
    """Draw the aggregators against Equal as a square picture for MLflow; None without any."""
    rows = aggregator_rows(comparison)
    return _card(rows, "Aggregators against Equal", comparison) if rows else None


def forest(rows: Sequence[ForestRow], title: str, comparison: Comparison) -> Figure:
    """Draw a forest plot for the report, as high as it has lines."""
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(5.6, 1.15 + 0.5 * len(rows)), layout="constrained")
        axes = figure.add_subplot()
        _draw(axes, rows, comparison, points=11)
        axes.set_title(title, loc="left", fontweight="bold", fontsize=12)
    return figure


def _card(rows: Sequence[ForestRow], title: str, comparison: Comparison) -> Figure:
    shown, hidden = _strongest(rows)
    with mpl.rc_context(STYLE | {"font.size": CARD_POINTS}):
        figure = Figure(
            figsize=(CARD_INCHES, CARD_INCHES), dpi=CARD_DPI, layout=ConstrainedLayoutEngine(w_pad=0.2, h_pad=0.2)
        )
        axes = figure.add_subplot()
        _draw(axes, shown, comparison, points=CARD_POINTS)
        axes.set_title(title, loc="left", fontweight="bold", fontsize=CARD_POINTS + 4, pad=14)
        if hidden:
            figure.supxlabel(f"and {hidden} more in the report", fontsize=CARD_POINTS, color=MUTED)
    return figure


def _strongest(rows: Sequence[ForestRow]) -> tuple[list[ForestRow], int]:
    """The lines that fit on a card, in their order: decided ones before the others, large effects before small."""
    ranked = sorted(rows, key=lambda row: (row.verdict not in COLORS, -_size(row)))
    kept = ranked[:CARD_ROWS]
    return [row for row in rows if row in kept], len(rows) - len(kept)


def _size(row: ForestRow) -> float:
    return -1.0 if row.estimate is None else abs(row.estimate.difference)


def _draw(axes: Axes, rows: Sequence[ForestRow], comparison: Comparison, *, points: int) -> None:
    """Draw each line as text over its bar, so that names and numbers need no margins of their own."""
    low, high = _limits(rows)
    has_effects = any(row.estimate is not None for row in rows)
    if has_effects:
        axes.axvline(0, color=INK, linewidth=1.2, zorder=1)
    background = {"facecolor": "white", "edgecolor": "none", "pad": 1.5}
    for position, row in enumerate(rows):
        color = COLORS.get(row.verdict, OPEN)
        style: dict[str, Any] = {
            "xycoords": axes.get_yaxis_transform(),
            "textcoords": "offset points",
            "va": "bottom",
            "zorder": 2,
            "bbox": background,
        }
        axes.annotate(row.label, (0, position), (0, 0.6 * points), fontweight="bold", **style)
        numbers = with_interval(row.estimate, comparison.metric.decimals)
        text = f"{numbers}  {row.verdict}".strip()
        axes.annotate(text, (1, position), (0, 0.6 * points), ha="right", color=color, fontsize=points - 1, **style)
        _bar(axes, position, row, (low, high), color=color, size=points)
        if position:
            axes.axhline(position - 0.68, color=RULE, linewidth=0.8, zorder=0)
    axes.set_xlim(low, high)
    axes.set_ylim(len(rows) - 0.68, -0.72)
    axes.set_yticks([])
    axes.spines["left"].set_visible(False)
    axes.tick_params(labelsize=points - 1)
    if not has_effects:
        axes.set_xticks([])
        return
    axes.set_xlabel(_axis_label(comparison), fontsize=points)
    axes.xaxis.set_major_locator(mpl.ticker.MaxNLocator(6))
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:+g}" if value else "0")


def _bar(axes: Axes, height: float, row: ForestRow, limits: tuple[float, float], *, color: str, size: float) -> None:
    """Draw one interval; what lies beyond the picture ends in an arrow head."""
    if row.estimate is None:
        return
    low, high = limits
    middle = row.estimate.difference
    start, end = row.estimate.interval or (middle, middle)
    style: dict[str, Any] = {"color": color, "clip_on": False, "zorder": 3}
    shown = [min(max(end, low), high) for end in (start, end)]
    axes.plot(shown, [height, height], linewidth=size / 4, solid_capstyle="butt", **style)
    if low <= middle <= high:
        axes.plot(middle, height, MARKERS.get(row.verdict, "o"), markersize=size * 0.62, **style)
    if start < low:
        axes.plot(low, height, "<", markersize=size * 0.6, **style)
    if end > high:
        axes.plot(high, height, ">", markersize=size * 0.6, **style)


def _limits(rows: Sequence[ForestRow]) -> tuple[float, float]:
    """The range of the horizontal axis: zero and all intervals, less those that a collapse puts out of sight."""
    estimates = [row.estimate for row in rows if row.estimate is not None]
    middles = [estimate.difference for estimate in estimates]
    # Of a few rows none is an outlier: each is a good part of the answer.
    near, far = bulk([*middles, 0.0]) if len(middles) >= FEW_ROWS else (-np.inf, np.inf)
    shown = [estimate for estimate in estimates if near <= estimate.difference <= far]
    ends = [end for estimate in shown for end in (estimate.interval or (estimate.difference,))]
    low, high = min([*ends, 0.0]), max([*ends, 0.0])
    if low == high:
        low, high = -1.0, 1.0
    room = 0.06 * (high - low)
    return low - room, high + room


def _axis_label(comparison: Comparison) -> str:
    metric = comparison.metric
    what = (
        "mean and 95% interval; verdicts after Holm's correction"
        if comparison.noise is not None
        else "mean, no interval"
    )
    where = f"TEST {metric.words}, protocol paper" if metric.is_test else metric.label
    return f"{metric.unit}, {where}\n{what}" if metric.unit == "points" else f"{where}\n{what}"


def describe(rows: Sequence[ForestRow], title: str, comparison: Comparison) -> str:
    """Return a picture's content in words, for who cannot see it."""
    parts = [
        f"{row.label} {signed(row.estimate.difference, comparison.metric.decimals)} {row.verdict}"
        if row.estimate is not None
        else f"{row.label} {row.verdict}"
        for row in rows
    ]
    return f"{title}: {'; '.join(parts) or UNDECIDED}."
