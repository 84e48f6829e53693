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
    [
        ({"a": 1}, "paths without a weight: b", ""),
        ({"a": 1, "b": 1, "c": 1}, "", "weights without a path: c"),
        ({"x": 1, "y": 2}, "paths without a weight: a, b", "weights without a path: x, y"),
    ],
)
def test_every_path_has_a_weight_and_every_weight_a_path(weights: Any, missing: str, unknown: str) -> None:
    findings = "; ".join(filter(None, [missing, unknown]))
    with pytest.raises(ValueError, match=f"^weights must name every path and nothing else; {findings}; paths: a, b$"):
        connected(Fixed(weights), 2)


def test_what_has_a_weight_is_called_what_it_is_and_a_near_name_is_suggested() -> None:
    layers = {"attention": ("layer1", "layer2"), "hint": ("layer2",)}
    groups = {"early": ["attention"], "late": ["hint"]}
    for weights, granularity, words in (
        ({"atention": 1, "hint": 1}, "path", r"paths: attention, hint\. Did you mean 'attention'\?"),
        (
            {"early": 1, "lat": 1},
            groups,
            r"groups without a weight: late; .* groups: early, late\. Did you mean 'late'",
        ),
        ({"attention.layer1": 1, "hint.layer2": 1}, "layer", r"layers without a weight: attention\.layer2; layers: "),
    ):
        with pytest.raises(ValueError, match=words):
            Fixed(weights, granularity=granularity).connect(layers)


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
