from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from aggregator_cases import connected, losses_of

from distill.aggregators import Aggregator, Fixed


def golden_weights_by_name(make: Callable[..., Aggregator]) -> None:
    # Paths arrive in the order a, b, whatever the order of the option: 1 + 1000 * .002 + .1 * 5 = 3.5.
    losses = losses_of(0.002, 5.0)
    aggregate = connected(make(weights={"b": 0.1, "a": 1000}), 2)(losses)
    aggregate.total.backward()
    torch.testing.assert_close(aggregate.total.item(), 3.5)
    torch.testing.assert_close(aggregate.weights, torch.tensor([1000.0, 0.1]))
    torch.testing.assert_close(losses.paths.grad.float(), torch.tensor([1000.0, 0.1]))


GOLDENS = {"Fixed": (golden_weights_by_name,)}


@pytest.mark.parametrize(
    ("weights", "missing", "unknown"),
    [({"a": 1}, "b", "none"), ({"a": 1, "b": 1, "c": 1}, "none", "c"), ({"x": 1, "y": 2}, "a, b", "x, y")],
)
def test_every_path_has_a_weight_and_every_weight_a_path(weights: Any, missing: str, unknown: str) -> None:
    rule = f"paths without a weight: {missing}; weights without a path: {unknown}; paths: a, b"
    with pytest.raises(ValueError, match=rule):
        connected(Fixed(weights), 2)


@pytest.mark.parametrize("weight", [math.nan, -math.inf, "1", None, True])
def test_weights_must_be_finite(weight: Any) -> None:
    with pytest.raises(ValueError, match=r"weights\.b must be a finite number, found"):
        Fixed({"a": 1.0, "b": weight})


def test_a_weight_of_zero_switches_a_path_off() -> None:
    assert connected(Fixed({"a": 0, "b": 2}), 2)(losses_of(7.0, 1.0)).total.item() == 3


def test_weights_are_an_option_and_no_state() -> None:
    assert not connected(Fixed({"a": 1.0}), 1).state_dict()


MUTANTS = {
    "Fixed": [
        ("[self.weights[key] for key in self.keys]", "[*self.weights.values()]"),
        ("[self.weights[key] for key in self.keys]", "[-self.weights[key] for key in self.keys]"),
        ("weighted_sum(losses, self.values)", "weighted_sum(losses, self.values / self.values.sum())"),
    ],
}
"""Changes of the source that a golden value notices; see test_mutants."""
