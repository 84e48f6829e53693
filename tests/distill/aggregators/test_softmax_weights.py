from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any
from unittest import mock

import pytest
import torch
from aggregator_cases import connected, losses_of
from torch import Tensor

from distill.aggregators import Aggregator, LogSum, SoftmaxWeights


def set_scalars(aggregator: Aggregator, *values: float) -> None:
    (parameter,) = aggregator.parameters()
    parameter.data = torch.tensor(values, dtype=torch.float64)


def golden_shares(make: Callable[..., Aggregator]) -> None:
    # theta / 2 = (ln 3, 0), so p = (3/4, 1/4).  L = (4, 2), L_task = 1, alpha = 1/2, n = 2: weights (3/4, 1/4).
    # Total: 1 + 3/4 * 4 + 1/4 * 2 = 4.5.  The scalars' sum has f = ln L + ln p = (ln 3, ln 1/2), and slopes
    # p_k / 2 (f_k - (3/4 ln 3 + 1/4 ln 1/2)): p_1 / 2 * 1/4 ln 6 = 3/32 ln 6, and the opposite.
    aggregator = connected(make(alpha_distill=0.5, temperature=2.0, epsilon=1e-12), 2)
    set_scalars(aggregator, 2 * math.log(3), 0.0)
    losses = losses_of(4.0, 2.0)
    aggregate = aggregator(losses)
    aggregate.total.backward()
    weights = torch.tensor([0.75, 0.25], dtype=torch.float64)
    torch.testing.assert_close(aggregate.total.item(), 4.5)
    torch.testing.assert_close(aggregate.weights, weights)
    torch.testing.assert_close(losses.paths.grad, weights)
    torch.testing.assert_close(losses.task.grad.item(), 1.0)
    slope = 3 / 32 * math.log(6)
    torch.testing.assert_close(next(aggregator.parameters()).grad.tolist(), [slope, -slope])


def golden_entropy(make: Callable[..., Aggregator]) -> None:
    # p = (3/4, 1/4), entropy 2, means over ranks (e^2, 1) with epsilon = 0.  f = (2 + 2 ln 3/4, 2 ln 1/4);
    # slope 3/16 (f_1 - f_2) = 3/16 (2 + 2 ln 3).  Weights have alpha = 1: 2 p.
    aggregator = connected(make(entropy=2.0, epsilon=1e-12), 2)
    set_scalars(aggregator, math.log(3), 0.0)
    means = torch.tensor([math.exp(2), 1.0], dtype=torch.float64)
    with mock.patch("distill.distributed.mean", return_value=means):
        aggregate = aggregator(losses_of(5.0, 5.0))
    aggregate.total.backward()
    torch.testing.assert_close(aggregate.weights.tolist(), [1.5, 0.5])
    slope = 3 / 16 * (2 + 2 * math.log(3))
    torch.testing.assert_close(next(aggregator.parameters()).grad.tolist(), [slope, -slope])


def golden_epsilon(make: Callable[..., Aggregator]) -> None:
    # p = (1/2, 1/2), L + 1 = (2, 2 e): f_1 - f_2 = -1, slope 1/4 (f_1 - f_2).
    aggregator = connected(make(epsilon=1.0), 2)
    set_scalars(aggregator, 0.0, 0.0)
    aggregator(losses_of(1.0, 2 * math.e - 1)).total.backward()
    torch.testing.assert_close(next(aggregator.parameters()).grad.tolist(), [-0.25, 0.25])


def golden_zero(make: Callable[..., Aggregator]) -> None:
    # p = 1/3 each; L = (0, e^4, e^2): the first counts as e^3: f - mean f = (0, 1, -1), slopes a third of that.
    aggregator = connected(make(epsilon=1e-12), 3)
    set_scalars(aggregator, 0.0, 0.0, 0.0)
    aggregator(losses_of(0.0, math.exp(4), math.exp(2))).total.backward()
    slopes = torch.tensor([0.0, 1 / 3, -1 / 3], dtype=torch.float64)
    torch.testing.assert_close(next(aggregator.parameters()).grad, slopes)


GOLDENS = {"SoftmaxWeights": (golden_shares, golden_entropy, golden_epsilon, golden_zero)}


def settle(aggregator: SoftmaxWeights, *values: float, steps: int = 2000) -> Tensor:
    """Return the weights to which constant losses lead."""
    optimizer = torch.optim.Adam(aggregator.parameters(), lr=0.05)
    for _ in range(steps):
        optimizer.zero_grad()
        aggregate = aggregator(losses_of(*values, dtype=torch.float32))
        aggregate.total.backward()
        optimizer.step()
        aggregator.after_step()
    return aggregate.weights


@pytest.mark.parametrize("scale", [1e-6, 1.0, 1e6])
def test_settles_where_all_paths_contribute_equally(scale: float) -> None:
    values = (0.1 * scale, 1.0 * scale, 3.0 * scale)
    weights = settle(connected(SoftmaxWeights(epsilon=1e-30), 3), *values)  # type: ignore[arg-type]
    log_sum = connected(LogSum(epsilon=1e-30), 3)(losses_of(*values)).weights.float()
    torch.testing.assert_close(weights, 3 * log_sum / log_sum.sum(), rtol=1e-3, atol=0)


def test_without_entropy_the_smallest_loss_takes_all() -> None:
    weights = settle(connected(SoftmaxWeights(entropy=0), 3), 0.9, 1.0, 3.0)  # type: ignore[arg-type]
    assert weights[0] > 2.97
    held = settle(connected(SoftmaxWeights(entropy=4.0), 3), 0.9, 1.0, 3.0)  # type: ignore[arg-type]
    wanted = torch.tensor([0.9, 1.0, 3.0]) ** (-1 / 4)
    torch.testing.assert_close(held, 3 * wanted / wanted.sum(), rtol=1e-3, atol=0)


@pytest.mark.parametrize("values", [(0.0, 1.0), (0.0, 0.0), (1e-10, 1e10), (5.0, 5.0)])
def test_weights_stay_within_their_sum(values: tuple[float, ...]) -> None:
    weights = settle(connected(SoftmaxWeights(alpha_distill=0.5), 2), *values, steps=300)  # type: ignore[arg-type]
    assert weights.sum().item() == pytest.approx(1.0)
    assert ((weights >= 0) & (weights <= 1)).all()
    if values[0] == values[1]:
        assert weights.tolist() == [0.5, 0.5]


def test_one_path_has_weight_alpha() -> None:
    assert settle(connected(SoftmaxWeights(0.3), 1), 7.0, steps=5).item() == pytest.approx(0.3)  # type: ignore[arg-type]


def test_options_of_the_optimiser() -> None:
    assert SoftmaxWeights().parameter_options() == {"weight_decay": 0.0}
    assert SoftmaxWeights(learning_rate=0.1, weight_decay=None).parameter_options() == {"lr": 0.1}


@pytest.mark.parametrize("value", [0.0, -1e-6])  # the latter by rounding
def test_the_smallest_epsilon_is_enough_in_float32(value: float) -> None:
    aggregator = connected(SoftmaxWeights(epsilon=1e-30), 2)
    losses = losses_of(value, 1.0, dtype=torch.float32)
    aggregate = aggregator(losses)
    aggregate.total.backward()
    assert aggregate.total.isfinite()
    assert losses.paths.grad.isfinite().all()
    assert aggregator.theta.grad.isfinite().all()  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("options", "rule"),
    [
        ({"alpha_distill": -1}, "alpha_distill must be a finite number of at least 0, found -1"),
        ({"entropy": -1}, "entropy must be a finite number of at least 0, found -1"),
        ({"temperature": 0}, "temperature must be a finite number above 0, found 0"),
        ({"epsilon": 0}, "epsilon must be a finite number of at least 1e-30, found 0"),
        ({"epsilon": 1e-50}, "epsilon must be a finite number of at least 1e-30, found 1e-50"),  # 0 in float32
        ({"learning_rate": 0}, "learning_rate must be a finite number above 0, found 0"),
        ({"weight_decay": -1}, "weight_decay must be a finite number of at least 0, found -1"),
    ],
)
def test_options_are_checked_at_construction(options: dict[str, Any], rule: str) -> None:
    with pytest.raises(ValueError, match=rule):
        SoftmaxWeights(**options)


MUTANTS = {
    "SoftmaxWeights": [
        ("self.theta / self.temperature", "self.theta * self.temperature"),
        ("self.theta / self.temperature", "-self.theta / self.temperature"),
        ("self.alpha_distill * len(losses.paths) * shares", "self.alpha_distill * shares"),
        ("self.alpha_distill * len(losses.paths) * shares", "len(losses.paths) * shares"),
        ("+ self.entropy * log_shares", "- self.entropy * log_shares"),
        ("+ self.entropy * log_shares", "+ log_shares"),
        ("+ self.entropy * log_shares", ""),
        ("(own - own.detach())", "own"),
        ("(own - own.detach())", "(own.detach() - own)"),
        ("distributed.mean(paths)", "paths.detach()"),
        ("(mean + self.epsilon)", "mean"),
        ("(mean + self.epsilon).log()", "(mean + self.epsilon)"),
        ("torch.where(known, logs, logs.sum() / known.sum().clamp_min(1))", "logs"),
        ("/ known.sum().clamp_min(1)", "/ len(paths)"),
    ],
}
"""Changes of the source that a golden value notices; see test_mutants."""
