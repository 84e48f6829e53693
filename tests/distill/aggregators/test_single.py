from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from aggregator_cases import connected, losses_of

from distill.aggregators import Aggregator, Single


def golden_weighted_path(make: Callable[..., Aggregator]) -> None:
    # 1 + .5 * 4 = 3; without the option 1 + 1 * 4 = 5.
    aggregate = connected(make(weight=0.5), 1)(losses_of(4.0))
    torch.testing.assert_close(aggregate.total.item(), 3.0)
    torch.testing.assert_close(aggregate.weights, torch.tensor([0.5], dtype=torch.float64))
    torch.testing.assert_close(connected(make(), 1)(losses_of(4.0)).total.item(), 5.0)


def golden_refuses_two(make: Callable[..., Aggregator]) -> None:
    refused = False
    try:
        connected(make(), 2)
    except ValueError:
        refused = True
    assert refused


GOLDENS = {"Single": (golden_weighted_path, golden_refuses_two)}


@pytest.mark.parametrize(("num_paths", "found"), [(0, "found none"), (2, "found 2: a, b")])
def test_takes_exactly_one_path(num_paths: int, found: str) -> None:
    with pytest.raises(ValueError, match=f"Single takes exactly one path, {found}; use Equal"):
        connected(Single(), num_paths)


@pytest.mark.parametrize("weight", [math.nan, math.inf, "1", True, None])
def test_weight_must_be_finite(weight: Any) -> None:
    with pytest.raises(ValueError, match="weight must be a finite number, found"):
        Single(weight=weight)


def test_a_path_of_several_layers_is_one_path() -> None:
    aggregator = Single()
    aggregator.connect({"attention": ("layer1", "layer2")})
    assert aggregator.keys == ("attention",)


MUTANTS = {
    "Single": [
        ("losses.paths, self.weight", "losses.paths, -self.weight"),
        ("losses.paths, self.weight", "losses.paths, 1.0"),
        ("weight: float = 1.0", "weight: float = 0.1"),
        ("num_keys != 1", "num_keys < 1"),
    ],
}
"""Changes of the source that a golden value notices; see test_mutants."""
