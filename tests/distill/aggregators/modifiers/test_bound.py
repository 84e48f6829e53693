from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
from modifier_cases import connected, reweigh

from distill.aggregators.modifiers import Bound, Modifier


def near(found: list[float], *wanted: float) -> bool:
    return len(found) == len(wanted) and all(map(lambda a, b: math.isclose(a, b, rel_tol=1e-6), found, wanted))


def golden_number(make: Callable[..., Modifier]) -> None:
    # min(w, 2): 1, 2, 2; of -3 the size.
    assert near(reweigh(connected(make(2.0), 4), 1.0, 2.0, 30.0, -3.0), 1.0, 2.0, 2.0, -2.0)


def golden_growth(make: Callable[..., Modifier]) -> None:
    # First value over 2 batches: of 1 and 3 the mean, 2.  Growth 1.5: at most 3.  In the first batch v = 1: 1 passes;
    # in the second v = 2: 3 passes; then 10 becomes 3 and 2.5 stays.
    bound = connected(make(growth=1.5, over=2), 1)
    assert [reweigh(bound, weight)[0] for weight in (1.0, 3.0, 10.0, 2.5)] == [1.0, 3.0, 3.0, 2.5]


def golden_growth_of_the_mean_so_far(make: Callable[..., Modifier]) -> None:
    # Over 10 batches, growth 1: 1, then (1 + 5) / 2 = 3, then (1 + 5 + 9) / 3 = 5.
    bound = connected(make(growth=1.0), 1)
    assert near([reweigh(bound, weight)[0] for weight in (1.0, 5.0, 9.0)], 1.0, 3.0, 5.0)


def golden_both(make: Callable[..., Modifier]) -> None:
    # max_weight first: what grows is 1 from 10 on; 1 * 2 = 2 does not reach past max_weight 1.
    bound = connected(make(max_weight=1.0, growth=2.0, over=1), 2)
    assert reweigh(bound, 10.0, 0.25) == [1.0, 0.25]
    assert reweigh(bound, 10.0, 10.0) == [1.0, 0.5]


def golden_zero_is_no_first_value(make: Callable[..., Modifier]) -> None:
    # A closed gate for two batches; then first value 4, growth 2: at most 8.
    bound = connected(make(growth=2.0, over=1), 2)
    assert reweigh(bound, 0.0, 1.0) == [0.0, 1.0]
    assert reweigh(bound, 0.0, 5.0) == [0.0, 2.0]
    assert reweigh(bound, 4.0, 5.0) == [4.0, 2.0]
    assert reweigh(bound, 100.0, 5.0) == [8.0, 2.0]


def golden_negative(make: Callable[..., Modifier]) -> None:
    # The size of -1 may become 3; a bound of 3 * -1 would have made -3 of -1.
    bound = connected(make(growth=3.0, over=1), 1)
    assert [reweigh(bound, weight)[0] for weight in (-1.0, -2.0, -5.0, 5.0)] == [-1.0, -2.0, -3.0, 3.0]


GOLDENS = {
    "Bound": (
        golden_number,
        golden_growth,
        golden_growth_of_the_mean_so_far,
        golden_both,
        golden_zero_is_no_first_value,
        golden_negative,
    )
}


@pytest.mark.parametrize("first", [1e-10, 1.0, 1e10])
def test_growth_is_relative(first: float) -> None:
    bound = connected(Bound(growth=6, over=3), 1)
    for _ in range(3):
        assert reweigh(bound, first) == [first]
    assert near(reweigh(bound, 1e30), 6 * first)


def test_an_infinite_weight_is_no_first_value_and_is_bounded_later() -> None:
    bound = connected(Bound(growth=2, over=1), 1)
    reweigh(bound, math.inf)
    assert reweigh(bound, 1.0) == [1.0]
    assert reweigh(bound, math.inf) == [2.0]


def test_evaluation_bounds_and_does_not_look() -> None:
    bound = connected(Bound(growth=2, over=2), 1)
    reweigh(bound, 1.0)
    bound.eval()
    assert reweigh(bound, 9.0) == [2.0]
    bound.train()
    assert reweigh(bound, 3.0) == [3.0]  # the mean of 1 and 3 is 2: at most 4
    assert reweigh(bound, 9.0) == [4.0]


@pytest.mark.parametrize(
    ("options", "rule"),
    [
        ({}, "Bound needs max_weight or growth, found neither"),
        ({"max_weight": 0}, "max_weight must be a finite number above 0, found 0"),
        ({"max_weight": math.inf}, "max_weight must be a finite number above 0, found inf"),
        ({"growth": 0.5}, "growth must be a finite number of at least 1, found 0.5"),
        ({"growth": 2, "over": 0}, "over must be a whole number of at least 1, found 0"),
        ({"growth": 2, "over": 1.5}, "over must be a whole number of at least 1, found 1.5"),
    ],
)
def test_options_are_checked_at_construction(options: dict[str, Any], rule: str) -> None:
    with pytest.raises(ValueError, match=rule):
        Bound(**options)


MUTANTS = {
    "Bound": [
        ("clamp(-self.max_weight, self.max_weight)", "clamp(max=self.max_weight)"),
        ("clamp(-self.max_weight, self.max_weight)", "clamp(-self.max_weight)"),
        ("self.growth * self._first.to", "self._first.to"),
        ("weights.clamp(-limits, limits)", "weights.clamp(max=limits)"),
        ("weights.abs().to(self._first)", "weights.to(self._first)"),
        ("(self._seen < self.over) & ", ""),
        ("self._seen < self.over", "self._seen <= self.over"),
        (" & (sizes > 0)", ""),
        ("/ (self._seen + 1)", "/ self.over"),
        ("torch.where(self._seen > 0, weights.clamp", "torch.where(self._seen >= self.over, weights.clamp"),
        ("over: int = 10", "over: int = 1"),
    ],
}
"""Changes of the source that a golden value notices; see test_mutants."""
