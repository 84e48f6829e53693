from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any
from unittest import mock

import pytest
import torch
from aggregator_cases import connected, losses_of

from distill.aggregators import Aggregator, Equal, GeometricMean, LogSum


def golden_geometric_mean(make: Callable[..., Aggregator]) -> None:
    # alpha = 1/2, L = (2, 8), L_task = 1: G = sqrt(16) = 4.  Total 1 + 1/2 * 2 * 4 = 5, weights 1/2 (4/2, 4/8).
    losses = losses_of(2.0, 8.0)
    aggregate = connected(make(alpha_distill=0.5, epsilon=1e-15), 2)(losses)
    aggregate.total.backward()
    torch.testing.assert_close(aggregate.total.item(), 5.0)
    torch.testing.assert_close(aggregate.weights.tolist(), [1.0, 0.25])
    torch.testing.assert_close(losses.paths.grad.tolist(), [1.0, 0.25])
    torch.testing.assert_close(losses.task.grad.item(), 1.0)


def golden_task_included(make: Callable[..., Aggregator]) -> None:
    # alpha = 1/2, L = (4, 16), L_task = 2: product 2 * 4^(1/2) * 16^(1/2) = 16, exponents sum to 2: G = 4.
    # Total 2 * 4 = 8.  Weights 1/2 (4/4, 4/16), of the task 4/2.
    losses = losses_of(4.0, 16.0, task=2.0)
    aggregate = connected(make(alpha_distill=0.5, include_task=True, epsilon=1e-15), 2)(losses)
    aggregate.total.backward()
    torch.testing.assert_close(aggregate.total.item(), 8.0)
    torch.testing.assert_close(aggregate.weights.tolist(), [0.5, 0.125])
    torch.testing.assert_close(losses.paths.grad.tolist(), [0.5, 0.125])
    torch.testing.assert_close(losses.task.grad.item(), 2.0)


def golden_epsilon(make: Callable[..., Aggregator]) -> None:
    # epsilon = 1, L = (0, 3): M = (1, 4), G = 2.  Total 1 + 2 * 2, weights (2/1, 2/4).
    aggregate = connected(make(epsilon=1.0), 2)(losses_of(0.0, 3.0))
    torch.testing.assert_close(aggregate.total.item(), 5.0)
    torch.testing.assert_close(aggregate.weights.tolist(), [2.0, 0.5])


def golden_mean_over_ranks(make: Callable[..., Aggregator]) -> None:
    # This rank has L = (1, 4), the mean over all ranks is (2, 8): G = 4, value 2 * 4, weights (2, 1/2).
    losses = losses_of(1.0, 4.0)
    aggregator = connected(make(epsilon=1e-15), 2)
    with mock.patch("distill.distributed.mean", lambda values: 2 * values.detach()):
        aggregate = aggregator(losses)
    aggregate.total.backward()
    torch.testing.assert_close(aggregate.total.item(), 9.0)
    torch.testing.assert_close(losses.paths.grad.tolist(), [2.0, 0.5])


GOLDENS = {"GeometricMean": (golden_geometric_mean, golden_task_included, golden_epsilon, golden_mean_over_ranks)}


@pytest.mark.parametrize("values", [(0.2, 3.0, 40.0), (1e-6, 1e10), (1e10,), (5.0, 5.0, 5.0, 5.0)])
def test_equals_the_published_strategy(values: tuple[float, ...]) -> None:
    # The first loss is the task's; the factor n is ours.
    scalarization = pytest.importorskip("torchjd.scalarization")
    losses = losses_of(*values[1:], task=values[0])
    total = connected(GeometricMean(include_task=True, epsilon=1e-30), len(values) - 1)(losses).total
    total.backward()
    theirs = torch.tensor(values, dtype=torch.float64, requires_grad=True)
    wanted = len(values) * scalarization.GeometricMean()(theirs)
    wanted.backward()
    torch.testing.assert_close(total, wanted)
    torch.testing.assert_close(torch.cat([losses.task.grad.reshape(1), losses.paths.grad]), theirs.grad)


@pytest.mark.parametrize("include_task", [False, True])
def test_gradient_is_that_of_the_value(include_task: bool) -> None:
    aggregator = connected(GeometricMean(0.3, include_task, epsilon=1e-3), 3)
    losses = losses_of(0.2, 3.0, 40.0, task=1.7)
    aggregator(losses).total.backward()
    for index in range(4):
        ends = []
        for sign in (1, -1):
            values = torch.tensor([1.7, 0.2, 3.0, 40.0], dtype=torch.float64)
            values[index] += sign * 1e-6
            ends.append(aggregator(losses_of(*values[1:].tolist(), task=values[0].item())).total.item())
        slope = losses.task.grad if index == 0 else losses.paths.grad[index - 1]
        assert slope.item() == pytest.approx((ends[0] - ends[1]) / 2e-6, rel=1e-6)


@pytest.mark.parametrize("include_task", [False, True])
def test_equal_losses_are_weighed_as_under_equal(include_task: bool) -> None:
    losses, twin = losses_of(3.0, 3.0, task=3.0), losses_of(3.0, 3.0, task=3.0)
    ours = connected(GeometricMean(0.7, include_task, epsilon=1e-30), 2)(losses)
    theirs = connected(Equal(0.7), 2)(twin)
    torch.testing.assert_close(ours.total, theirs.total)
    torch.testing.assert_close(ours.weights, theirs.weights)


def test_weights_are_in_the_relation_of_log_sum() -> None:
    values = (0.2, 3.0, 40.0)
    ours = connected(GeometricMean(), 3)(losses_of(*values)).weights
    theirs = connected(LogSum(), 3)(losses_of(*values)).weights
    torch.testing.assert_close(ours / ours.sum(), theirs / theirs.sum())


@pytest.mark.parametrize("include_task", [False, True])
@pytest.mark.parametrize("task", [0.0, 1.0, 1e10])
@pytest.mark.parametrize("values", [(), (0.0,), (0.0, 0.0), (1e-10, 1e10), (0.0, 1e10, 1.0), (1e30, 1e30)])
def test_stays_finite(values: tuple[float, ...], task: float, include_task: bool) -> None:
    losses = losses_of(*values, task=task, dtype=torch.float32)
    aggregate = connected(GeometricMean(include_task=include_task), len(values))(losses)
    aggregate.total.backward()
    assert aggregate.total.isfinite()
    assert losses.task.grad.isfinite()
    assert aggregate.weights.isfinite().all()
    # A loss of 0 has the largest weight; G is at most the largest loss.
    assert (aggregate.weights <= max([1e-8, task, *values]) / 1e-8 * 1.01).all()


def test_a_loss_of_zero_ends_at_the_weight_of_epsilon() -> None:
    # G = sqrt(1e-8 * 1) = 1e-4.
    weights = connected(GeometricMean(), 2)(losses_of(0.0, 1.0)).weights
    assert weights.tolist() == pytest.approx([1e4, 1e-4], rel=1e-6)


def test_the_task_is_weighed_where_it_is_included() -> None:
    assert not GeometricMean().weighs_task
    assert GeometricMean(include_task=True).weighs_task


@pytest.mark.parametrize(
    ("options", "rule"),
    [
        ({"alpha_distill": math.inf}, "alpha_distill must be a finite number of at least 0, found inf"),
        ({"epsilon": 0}, "epsilon must be a finite number of at least 1e-30, found 0"),
    ],
)
def test_options_are_checked_at_construction(options: dict[str, Any], rule: str) -> None:
    with pytest.raises(ValueError, match=rule):
        GeometricMean(**options)


MUTANTS = {
    "GeometricMean": [
        (
            "distributed.mean(torch.cat([losses.paths, losses.task.reshape(1)]))",
            "torch.cat([losses.paths.detach(), losses.task.detach().reshape(1)])",
        ),
        ("+ self.epsilon", "- self.epsilon"),
        ("self.alpha_distill * len(paths) * geometric", "self.alpha_distill * geometric"),
        ("return Aggregate(losses.task + value", "return Aggregate(value"),
        ("exponents[:-1] = self.alpha_distill", "exponents[:] = self.alpha_distill"),
        ("exponents[:-1] = self.alpha_distill", "exponents[:-1] = 1"),
        ("exponents.sum() * geometric + (", "geometric + ("),
        ("task_weight * losses.task", "losses.task"),
        ("(exponents * values.log()).sum()", "(exponents * values).sum()"),
        ("/ exponents.sum().clamp_min(1)", "/ len(exponents)"),
    ],
}
"""Changes of the source that a golden value notices; see test_mutants."""
