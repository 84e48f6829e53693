from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from aggregator_cases import connected, losses_of
from torch._dynamo.testing import CompileCounter

from distill.aggregators import Aggregator, Order


def weights_at(aggregator: Aggregator, progress: Any) -> list[float]:
    """Return the weights at this share of the training."""
    losses = losses_of(*range(1, len(aggregator.keys) + 1))
    weights: list[float] = aggregator.combine(replace(losses, progress=progress)).weights.tolist()
    return weights


def golden_one_after_another(make: Callable[..., Aggregator]) -> None:
    # Two paths, halves: a below 1/2, b from 1/2 on.  L = (3, 5), alpha = 2: total 1 + 2 * 3, then 1 + 2 * 5.
    aggregator = connected(make(alpha_distill=2.0), 2)
    for progress, weights, total in ((0.0, [2.0, 0.0], 7.0), (0.5, [0.0, 2.0], 11.0), (1.0, [0.0, 2.0], 11.0)):
        losses = replace(losses_of(3.0, 5.0), progress=progress)
        aggregate = aggregator(losses)
        aggregate.total.backward()
        assert aggregate.total.item() == total
        assert aggregate.weights.tolist() == weights
        assert losses.paths.grad.tolist() == weights


def golden_shares_and_order(make: Callable[..., Aggregator]) -> None:
    # c, a, b with shares 1 : 2 : 1: c below 1/4, a below 3/4, b to the end.
    aggregator = connected(make(order=["c", "a", "b"], shares={"a": 2, "b": 1, "c": 1}), 3)
    assert weights_at(aggregator, 0.24) == [0, 0, 1]
    assert weights_at(aggregator, 0.25) == weights_at(aggregator, 0.74) == [1, 0, 0]
    assert weights_at(aggregator, 0.75) == [0, 1, 0]


def golden_keep(make: Callable[..., Aggregator]) -> None:
    aggregator = connected(make(order=["b", "a"], keep=True), 2)
    assert weights_at(aggregator, 0.25) == [0, 1]
    assert weights_at(aggregator, 0.75) == [1, 1]


GOLDENS = {"Order": (golden_one_after_another, golden_shares_and_order, golden_keep)}


@pytest.mark.parametrize("num_paths", [1, 2, 3, 5, 7])
@pytest.mark.parametrize("as_tensor", [False, True])
def test_every_step_belongs_to_one_path_and_parts_are_equal(num_paths: int, as_tensor: bool) -> None:
    # 30 steps a part: the step on an edge is the first of its part, though 1/3 has no exact float.
    aggregator = connected(Order(), num_paths)
    counted = []
    for step in range(30 * num_paths):
        progress = step / (30 * num_paths)
        weights = weights_at(aggregator, torch.tensor(progress) if as_tensor else progress)
        assert sum(weights) == 1
        counted.append(weights.index(1))
    assert counted == [path for path in range(num_paths) for _ in range(30)]


def test_edges_hold_in_double_precision() -> None:
    aggregator = connected(Order(), 3).double()
    assert weights_at(aggregator, 1 / 3) == [0, 1, 0]
    assert weights_at(aggregator, torch.tensor(2 / 3)) == [0, 0, 1]


@pytest.mark.parametrize("keep", [False, True])
def test_progress_is_data_in_one_graph(keep: bool) -> None:
    torch._dynamo.reset()
    counter = CompileCounter()
    aggregator = connected(Order(keep=keep), 2)
    compiled = torch.compile(aggregator, backend=counter, fullgraph=True)
    for progress in (0.0, 0.4, 0.6, 1.0):
        losses = replace(losses_of(3.0, 5.0), progress=torch.tensor(progress))
        assert torch.equal(compiled(losses).weights, aggregator(losses).weights)
    assert counter.frame_count == 1


def test_options_are_no_state() -> None:
    assert not connected(Order(), 2).state_dict()


def test_without_paths_the_task_is_all() -> None:
    assert connected(Order(), 0)(losses_of(task=2.5)).total.item() == 2.5


def test_layers_have_parts_of_their_own() -> None:
    aggregator = Order(["soft_target.logits", "attention.layer2", "attention.layer1"], granularity="layer")
    aggregator.connect({"attention": ("layer1", "layer2"), "soft_target": ("logits",)})
    assert weights_at(aggregator, 0.5) == [0, 1, 0]


@pytest.mark.parametrize(
    ("options", "rule"),
    [
        ({"order": ["a", "b", "a"]}, "order must name every path once, found several times: a"),
        ({"shares": {"a": 0, "b": 1}}, r"shares\.a must be a finite number above 0, found 0"),
        ({"shares": {"a": math.inf}}, r"shares\.a must be a finite number above 0, found inf"),
        ({"alpha_distill": -1}, "alpha_distill must be a finite number of at least 0, found -1"),
    ],
)
def test_options_are_checked_at_construction(options: dict[str, Any], rule: str) -> None:
    with pytest.raises(ValueError, match=rule):
        Order(**options)


@pytest.mark.parametrize(
    ("options", "rule"),
    [
        ({"order": ["a"]}, "nothing else; paths without a place: b; paths: a, b$"),
        ({"order": ["b", "a", "c"]}, "nothing else; places without a path: c; paths: a, b$"),
        ({"shares": {"b": 1, "x": 2}}, "shares must name .* paths without a share: a; shares without a path: x"),
    ],
)
def test_names_are_checked_at_connect(options: dict[str, Any], rule: str) -> None:
    with pytest.raises(ValueError, match=rule):
        connected(Order(**options), 2)


MUTANTS = {
    "Order": [
        ("self._begins <= done", "self._begins < done"),
        ("done < self._ends", "done <= self._ends"),
        ("self.alpha_distill * counts", "1.0 * counts"),
        ("order.index(key) for key in self.keys", "self.keys.index(key) for key in order"),
        ("shares[name] for name in order", "shares[name] for name in self.keys"),
        ("torch.inf if self.keep", "torch.inf if not self.keep"),
        ("[torch.inf]", "[1.0]"),
    ],
}
"""Changes of the source that a golden value notices; see test_mutants."""
