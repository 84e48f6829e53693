from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any
from unittest import mock

import pytest
import torch
from aggregator_cases import connected, losses_of
from torch import Tensor

from distill.aggregators import Adaptive, Aggregator, LogSum, Losses


def golden_logarithms(make: Callable[..., Aggregator]) -> None:
    # alpha = 1/2, L = (4, 2), L_task = 1: total 1 + 1/2 (ln 4 + ln 2) = 1 + 1/2 ln 8, weights 1/2 (1/4, 1/2).
    losses = losses_of(4.0, 2.0)
    aggregate = connected(make(alpha_distill=0.5, epsilon=1e-12), 2)(losses)
    aggregate.total.backward()
    expected = torch.tensor([0.125, 0.25], dtype=torch.float64)
    torch.testing.assert_close(aggregate.total.item(), 1 + 0.5 * math.log(8))
    torch.testing.assert_close(aggregate.weights, expected)
    torch.testing.assert_close(losses.paths.grad, expected)
    torch.testing.assert_close(losses.task.grad, torch.ones((), dtype=torch.float64))


def golden_epsilon(make: Callable[..., Aggregator]) -> None:
    # epsilon = 1, L = (0, 3): total 1 + ln 1 + ln 4, weights (1, 1/4).
    aggregate = connected(make(epsilon=1.0), 2)(losses_of(0.0, 3.0))
    torch.testing.assert_close(aggregate.total.item(), 1 + math.log(4))
    torch.testing.assert_close(aggregate.weights, torch.tensor([1.0, 0.25], dtype=torch.float64))


def golden_mean_over_ranks(make: Callable[..., Aggregator]) -> None:
    # This rank has L = 2, the mean over all ranks is 6: value ln 6, weight and gradient 1/6.
    losses = losses_of(2.0)
    aggregator = connected(make(epsilon=1e-12), 1)
    with mock.patch("distill.distributed.mean", lambda values: 3 * values.detach()):
        aggregate = aggregator(losses)
    aggregate.total.backward()
    torch.testing.assert_close(aggregate.total.item(), 1 + math.log(6))
    torch.testing.assert_close(losses.paths.grad.item(), 1 / 6)
    torch.testing.assert_close(aggregate.weights.item(), 1 / 6)


GOLDENS = {"LogSum": (golden_logarithms, golden_epsilon, golden_mean_over_ranks)}


def descend(aggregator: Aggregator, scale: float) -> Tensor:
    """Return the gradient that reaches shared features through two paths, the first one multiplied."""
    features = torch.tensor([0.3, -1.2], dtype=torch.float64, requires_grad=True)
    paths = torch.stack([scale * (features - 1).square().sum(), features.abs().sum()])
    total = aggregator(Losses(features.sum(), paths, ("a", "b"), 0.0)).total
    (gradient,) = torch.autograd.grad(total, features)
    return gradient


@pytest.mark.parametrize("scale", [1e-3, 1e3])
def test_constants_in_front_of_a_path_do_not_count(scale: float) -> None:
    aggregator = connected(LogSum(epsilon=1e-30), 2)
    torch.testing.assert_close(descend(aggregator, scale), descend(aggregator, 1.0))


def test_is_the_equilibrium_of_adaptive() -> None:
    values = (0.2, 3.0, 40.0)
    adaptive, log_sum = connected(Adaptive(), 3), connected(LogSum(epsilon=1e-30), 3)
    adaptive.a.data = torch.tensor(values, dtype=torch.float64).log()
    ours, theirs = log_sum(losses_of(*values)), adaptive(losses_of(*values))
    torch.testing.assert_close(ours.weights, theirs.weights)
    torch.testing.assert_close(ours.total + 3, theirs.total)  # each path contributes 1 there


def test_layer_granularity_takes_one_logarithm_a_layer() -> None:
    layers = {"attention": ("layer1", "layer2")}
    by_path, by_layer = LogSum("path", epsilon=1e-30), LogSum("layer", epsilon=1e-30)
    by_path.connect(layers)
    by_layer.connect(layers)
    assert by_path(losses_of(2.0 + 6.0, task=0.0)).total.item() == pytest.approx(math.log(8))
    assert by_layer(losses_of(2.0, 6.0, task=0.0)).total.item() == pytest.approx(math.log(12))


def test_a_loss_of_zero_stays_finite() -> None:
    features = torch.zeros(1, requires_grad=True)
    losses = Losses(torch.tensor(1.0), features.square(), ("a",), 0.0)
    aggregate = connected(LogSum(), 1)(losses)
    aggregate.total.backward()
    assert aggregate.total.item() == pytest.approx(1 + math.log(1e-8))
    assert aggregate.weights.item() == pytest.approx(1e8)
    assert features.grad.item() == 0


@pytest.mark.parametrize("value", [0.0, -1e-6])  # the latter by rounding
def test_the_smallest_epsilon_is_enough_in_float32(value: float) -> None:
    losses = losses_of(value, 1.0, dtype=torch.float32)
    aggregate = connected(LogSum(epsilon=1e-30), 2)(losses)
    aggregate.total.backward()
    assert aggregate.total.isfinite()
    torch.testing.assert_close(losses.paths.grad.tolist(), [1e30, 1.0])


@pytest.mark.parametrize(
    ("options", "rule"),
    [
        ({"granularity": "stage"}, "granularity must be 'path', 'layer' or a mapping of groups"),
        ({"alpha_distill": -1}, "alpha_distill must be a finite number of at least 0, found -1"),
        ({"epsilon": 0}, "epsilon must be a finite number of at least 1e-30, found 0"),
        ({"epsilon": 1e-50}, "epsilon must be a finite number of at least 1e-30, found 1e-50"),  # 0 in float32
        ({"epsilon": math.nan}, "epsilon must be a finite number of at least 1e-30, found nan"),
    ],
)
def test_options_are_checked_at_construction(options: dict[str, Any], rule: str) -> None:
    with pytest.raises(ValueError, match=rule):
        LogSum(**options)


MUTANTS = {
    "LogSum": [
        ("distributed.mean(losses.paths)", "losses.paths.detach()"),
        ("+ self.epsilon", "- self.epsilon"),
        ("self.alpha_distill / mean", "self.alpha_distill * mean"),
        ("self.alpha_distill / mean", "1 / mean"),
        ("mean.log().sum()", "mean.log().mean()"),
        ("mean.log().sum()", "-mean.log().sum()"),
        ("mean.log().sum()", "mean.sum()"),
        ("self.alpha_distill * mean.log()", "mean.log()"),
        ("(weights * losses.paths).sum()", "(weights * losses.paths).mean()"),
        ("(descended - descended.detach())", "(descended.detach() - descended)"),
        ("(descended - descended.detach())", "descended"),
    ],
}
"""Changes of the source that a golden value notices; see test_mutants."""
