from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
from modifier_cases import connected, reweigh

from distill.aggregators.modifiers import Modifier, Normalize


def golden_as_many_as_there_are(make: Callable[..., Modifier]) -> None:
    # Three weights of sum 12, to sum 3: a quarter of each.
    assert reweigh(connected(make(), 3), 8.0, 4.0, 0.0) == [2.0, 1.0, 0.0]


def golden_total(make: Callable[..., Modifier]) -> None:
    assert reweigh(connected(make(total=0.5), 2), 1.0, 3.0) == [0.125, 0.375]


def golden_sizes(make: Callable[..., Modifier]) -> None:
    # Of 3 and -1 the sizes sum to 4: scaled by 2 / 4.  3 and -3 cancel in no sum of sizes.
    assert reweigh(connected(make(), 2), 3.0, -1.0) == [1.5, -0.5]
    assert reweigh(connected(make(), 2), 3.0, -3.0) == [1.0, -1.0]


def golden_zero(make: Callable[..., Modifier]) -> None:
    assert reweigh(connected(make(), 2), 0.0, 0.0) == [0.0, 0.0]


GOLDENS = {"Normalize": (golden_as_many_as_there_are, golden_total, golden_sizes, golden_zero)}


@pytest.mark.parametrize("scale", [1e-300, 1e-310, 1e-10, 1.0, 1e10, 1e300])
def test_relations_alone_count(scale: float) -> None:
    found = reweigh(connected(Normalize(), 2), scale, 3 * scale)
    assert found == pytest.approx([0.5, 1.5])


@pytest.mark.parametrize("total", [0, -1, math.nan, "2", True])
def test_the_total_must_be_above_zero(total: Any) -> None:
    with pytest.raises(ValueError, match="total must be a finite number above 0, found"):
        Normalize(total)


MUTANTS = {
    "Normalize": [
        ("len(self.keys) if", "1.0 if"),
        ("len(self.keys) if self.total is None else self.total", "len(self.keys)"),
        ("weights.abs().sum()", "weights.sum()"),
        ("weights.abs().sum()", "weights.abs().mean()"),
        ("weights.abs().sum()", "weights.norm()"),
        ("weights / summed.masked_fill(summed == 0, 1.0)", "weights / summed"),
        (" * total\n", "\n"),
    ],
}
"""Changes of the source that a golden value notices; see test_mutants."""
