"""Colours and marks of the pictures: readable without colour too."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from orchestrator.compare.verdicts import BETTER, HELPS, HURTS, WORSE

INK, MUTED, RULE = "#1f2328", "#59636e", "#d1d9e0"
GOOD, BAD, OPEN = "#116329", "#b3121d", "#59636e"
COLORS = {HELPS: GOOD, BETTER: GOOD, HURTS: BAD, WORSE: BAD}
MARKERS = {HELPS: "^", BETTER: "^", HURTS: "v", WORSE: "v"}
# One shape an aggregator, then again from the start; with eight shapes two of a colour never look alike.
SHAPES = "osD^vPX*"
# Okabe and Ito's palette, told apart by colour-blind readers.
SERIES = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000")

# Matplotlib types its keys release by release, hence Any.
STYLE: dict[Any, Any] = {
    "font.family": "DejaVu Sans",
    "font.size": 11,
    "svg.fonttype": "none",  # text stays text: small, searchable, read aloud
    "svg.hashsalt": "distillery",  # the same sweep gives the same file
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": MUTED,
    "axes.labelcolor": INK,
    "text.color": INK,
    "xtick.color": INK,
    "ytick.color": INK,
}


def bulk(values: Sequence[float], *, reach: float = 3.0) -> tuple[float, float]:
    """Return the range of most ``values``: a collapsed arm must not flatten the picture of all others.

    Tukey's fences: ``reach`` times the interquartile range beyond the quartiles, and never less than the outer
    values inside them.
    """
    low, high = np.quantile(values, [0.25, 0.75])
    fence = reach * max(float(high - low), 1e-9)
    inside = [value for value in values if low - fence <= value <= high + fence]
    return min(inside), max(inside)
