from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from aggregator_cases import connected, losses_of

from distill.aggregators import Adaptive, Aggregator, UncertaintyWeighting


def set_scalars(aggregator: Aggregator, *values: float) -> None:
    (parameter,) = aggregator.parameters()
    parameter.data = torch.tensor(values, dtype=torch.float64)


def golden_paths(make: Callable[..., Aggregator]) -> None:
    # s = (ln 2, -ln 3), L = (4, 1), L_task = 1, alpha = 1/2: 1 + 1/4 (1/2 * 4 + 3 * 1 + ln 2 - ln 3).
    # Weights 1/4 (1/2, 3); d/ds = 1/4 (1 - exp(-s) L) = 1/4 (-1, -2).
    aggregator = connected(make(alpha_distill=0.5), 2)
    set_scalars(aggregator, math.log(2), -math.log(3))
    losses = losses_of(4.0, 1.0)
    aggregate = aggregator(losses)
    aggregate.total.backward()
    weights = torch.tensor([0.125, 0.75], dtype=torch.float64)
    torch.testing.assert_close(aggregate.total.item(), 1 + 0.25 * (5 + math.log(2 / 3)))
    torch.testing.assert_close(aggregate.weights, weights)
    torch.testing.assert_close(losses.paths.grad, weights)
    torch.testing.assert_close(losses.task.grad.item(), 1.0)
    slopes = torch.tensor([-0.25, -0.5], dtype=torch.float64)
    torch.testing.assert_close(next(aggregator.parameters()).grad, slopes)


def golden_task(make: Callable[..., Aggregator]) -> None:
    # s = (ln 4, ln 2), L_task = 3, L = 5, alpha = 3: (3/4 + ln 4)/2 + 3/2 (5/2 + ln 2).
    # Weights: task 1/8, path 3/4; d/ds = (1/2 (1 - 3/4), 3/2 (1 - 5/2)).
    aggregator = connected(make(alpha_distill=3.0, include_task=True), 1)
    set_scalars(aggregator, math.log(4), math.log(2))
    losses = losses_of(5.0, task=3.0)
    aggregate = aggregator(losses)
    aggregate.total.backward()
    torch.testing.assert_close(aggregate.total.item(), 0.375 + math.log(2) + 1.5 * (2.5 + math.log(2)))
    torch.testing.assert_close(aggregate.weights.tolist(), [0.75])
    torch.testing.assert_close(losses.task.grad.item(), 0.125)
    torch.testing.assert_close(losses.paths.grad.tolist(), [0.75])
    torch.testing.assert_close(next(aggregator.parameters()).grad.tolist(), [0.125, -2.25])


def golden_bound(make: Callable[..., Aggregator]) -> None:
    # At most 8: the task's s >= ln(1/2 / 8), the path's with alpha = 4 >= ln(2 / 8).
    aggregator = connected(make(alpha_distill=4.0, include_task=True, max_weight=8.0), 1)
    set_scalars(aggregator, -10.0, -10.0)
    aggregator.after_step()
    torch.testing.assert_close(next(aggregator.parameters()).tolist(), [-math.log(16), -math.log(4)])


GOLDENS = {"UncertaintyWeighting": (golden_paths, golden_task, golden_bound)}


def test_equals_adaptive_with_half_its_alpha() -> None:
    ours, theirs = connected(UncertaintyWeighting(0.6), 3), connected(Adaptive(alpha_distill=0.3), 3)
    results = []
    for aggregator in (ours, theirs):
        set_scalars(aggregator, 0.3, -2.0, 5.0)
        losses = losses_of(0.2, 3.0, 40.0)
        aggregate = aggregator(losses)
        aggregate.total.backward()
        results.append((aggregate.total.detach(), aggregate.weights, losses.paths.grad, aggregator.a.grad))
    for found, wanted in zip(*results, strict=True):
        torch.testing.assert_close(found, wanted)


@pytest.mark.parametrize("include_task", [False, True])
def test_equals_the_published_weighting(include_task: bool) -> None:
    scalarization = pytest.importorskip("torchjd.scalarization")
    values = (2.0, 0.2, 3.0, 40.0) if include_task else (0.2, 3.0, 40.0)
    ours, theirs = connected(UncertaintyWeighting(include_task=include_task), 3), scalarization.UW(len(values))
    scalars = [0.3, -2.0, 5.0, 0.1][: len(values)]
    set_scalars(ours, *scalars)
    theirs.log_var.data = torch.tensor(scalars, dtype=torch.float64)
    total = ours(losses_of(*values[-3:], task=2.0)).total
    total.backward()
    wanted = theirs(torch.tensor(values, dtype=torch.float64)) + (0.0 if include_task else 2.0)
    wanted.backward()
    torch.testing.assert_close(total, wanted)
    torch.testing.assert_close(ours.a.grad, theirs.log_var.grad)


def test_a_constant_loss_settles_at_its_logarithm() -> None:
    aggregator = connected(UncertaintyWeighting(include_task=True), 2)
    optimizer = torch.optim.SGD(aggregator.parameters(), lr=0.2, momentum=0.9)
    for _ in range(400):
        optimizer.zero_grad()
        aggregator(losses_of(0.02, 3.0, task=0.5, dtype=torch.float32)).total.backward()
        optimizer.step()
        aggregator.after_step()
    torch.testing.assert_close(aggregator.a.exp(), torch.tensor([0.5, 0.02, 3.0]), rtol=1e-3, atol=0)


def test_the_weights_of_losses_of_zero_stop_at_the_bound() -> None:
    aggregator = connected(UncertaintyWeighting(include_task=True, max_weight=10.0), 1)
    optimizer = torch.optim.SGD(aggregator.parameters(), lr=1.0, momentum=0.9)
    for _ in range(50):
        optimizer.zero_grad()
        losses = losses_of(0.0, task=0.0, dtype=torch.float32)
        aggregate = aggregator(losses)
        aggregate.total.backward()
        optimizer.step()
        aggregator.after_step()
    assert losses.task.grad.item() == pytest.approx(10)
    assert aggregate.weights.item() == pytest.approx(10)


def test_what_is_weighed_is_declared() -> None:
    assert not UncertaintyWeighting().weighs_task
    assert UncertaintyWeighting(include_task=True).weighs_task


@pytest.mark.parametrize(
    ("options", "rule"),
    [
        ({"alpha_distill": -1}, "alpha_distill must be a finite number of at least 0, found -1"),
        ({"initial": "log"}, "initial must be a finite number, found 'log'"),
        ({"max_weight": 0.4}, "max_weight must be at least the first weight"),
        ({"include_task": True, "alpha_distill": 0, "max_weight": 0.4}, "max_weight must be at least the first weight"),
        ({"learning_rate": 0}, "learning_rate must be a finite number above 0, found 0"),
    ],
)
def test_options_are_checked_at_construction(options: dict[str, Any], rule: str) -> None:
    with pytest.raises(ValueError, match=rule):
        UncertaintyWeighting(**options)


WITH_TASK = "distill.aggregators.with_task"

MUTANTS = {
    "UncertaintyWeighting": [
        ("torch.exp(-s)", "torch.exp(s)"),
        ("+ (self._scales * s).sum()", "+ s.sum()"),
        ("+ (self._scales * s).sum()", "- (self._scales * s).sum()"),
        ("(weights * values).sum()", "(weights * values).mean()"),
        ("[0.5] *", "[1.0] *"),
        ("self.alpha_distill / 2", "self.alpha_distill"),
        ("self.alpha_distill / 2", "0.5"),
        ("weights[1:]", "weights[:-1]"),
        ("Aggregate(losses.task + total, ", "Aggregate(total, "),
        (
            "losses.task.reshape(1), losses.paths",
            "losses.paths, losses.task.reshape(1)",
            "distill.aggregators.with_task",
        ),
        ("clamp_(min=", "clamp_(max=", "distill.aggregators.learned_scale"),
    ],
}
"""Changes of the source that a golden value notices; see test_mutants."""
