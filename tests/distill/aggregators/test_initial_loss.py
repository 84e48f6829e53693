from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any
from unittest import mock

import pytest
import torch
from aggregator_cases import connected, losses_of

from distill.aggregators import Aggregator, InitialLoss

BENEATH = "distill.aggregators.first_losses"


def golden_units_of_the_first_loss(make: Callable[..., Aggregator]) -> None:
    # over = 2, alpha = 1/2.  Batches L = (4, 1/2), (8, 1/4), (16, 1): F is (4, 1/2), then (6, 3/8), and stays.
    # Weights 1/2 / F: (1/8, 1), (1/12, 4/3), (1/12, 4/3).  Third total: 1 + 16/12 + 4/3 = 11/3.
    aggregator = connected(make(alpha_distill=0.5, over=2), 2)
    torch.testing.assert_close(aggregator(losses_of(4.0, 0.5)).weights.tolist(), [1 / 8, 1.0])
    torch.testing.assert_close(aggregator(losses_of(8.0, 0.25)).weights.tolist(), [1 / 12, 4 / 3], rtol=1e-6, atol=0)
    losses = losses_of(16.0, 1.0)
    aggregate = aggregator(losses)
    aggregate.total.backward()
    torch.testing.assert_close(aggregate.total.item(), 11 / 3, rtol=1e-6, atol=0)
    torch.testing.assert_close(losses.paths.grad.tolist(), [1 / 12, 4 / 3], rtol=1e-6, atol=0)
    torch.testing.assert_close(losses.task.grad.item(), 1.0)


def golden_floors(make: Callable[..., Aggregator]) -> None:
    # F = (0, 8), F_task = 4.  Floors: 1 and 1/2 * 4 = 2, the larger counts: weights 1/2 and 1/8.
    # With a task of 1: floor max(1, 1/2) = 1.
    options = {"epsilon": 1.0, "epsilon_of_task": 0.5}
    assert connected(make(**options), 2)(losses_of(0.0, 8.0, task=4.0)).weights.tolist() == [0.5, 0.125]
    assert connected(make(**options), 2)(losses_of(0.0, 8.0, task=1.0)).weights.tolist() == [1.0, 0.125]


def golden_size_of_a_loss_below_zero(make: Callable[..., Aggregator]) -> None:
    # Batches -2 and 4: the mean size is 3, not 1.
    aggregator = connected(make(), 1)
    aggregator(losses_of(-2.0))
    torch.testing.assert_close(aggregator(losses_of(4.0)).weights.item(), 1 / 3, rtol=1e-6, atol=0)


def golden_mean_over_ranks(make: Callable[..., Aggregator]) -> None:
    # This rank has L = 2, the mean over all ranks is 8.
    aggregator = connected(make(), 1)
    with mock.patch("distill.distributed.mean", lambda values: 4 * values.detach()):
        assert aggregator(losses_of(2.0)).weights.item() == 0.125


def golden_without_what_is_not_finite(make: Callable[..., Aggregator]) -> None:
    # Over two batches: first losses (4, 8), then (nan, 4), then (2, inf), and (99, 99) is one too late: (3, 6).
    aggregator = connected(make(over=2), 2)
    for values in ((4.0, 8.0), (math.nan, 4.0), (2.0, math.inf), (99.0, 99.0)):
        weights = aggregator(losses_of(*values)).weights.tolist()
    torch.testing.assert_close(weights, [1 / 3, 1 / 6], rtol=1e-6, atol=0)


def golden_defaults(make: Callable[..., Aggregator]) -> None:
    # Ten batches: after nine of 1 and one of 11 the mean is 2; the eleventh, of 1000, is one too late.
    aggregator = connected(make(), 1)
    for value in [1.0] * 9 + [11.0, 1000.0]:
        weight = aggregator(losses_of(value)).weights.item()
    torch.testing.assert_close(weight, 0.5, rtol=1e-6, atol=0)


GOLDENS = {
    "InitialLoss": (
        golden_units_of_the_first_loss,
        golden_floors,
        golden_size_of_a_loss_below_zero,
        golden_mean_over_ranks,
        golden_without_what_is_not_finite,
        golden_defaults,
    )
}


@pytest.mark.parametrize("scale", [1e-10, 1e-3, 1.0, 1e10])
def test_constants_in_front_of_a_path_do_not_count(scale: float) -> None:
    aggregator = connected(InitialLoss(epsilon_of_task=0), 2)
    for value in (3.0, 2.0, 1.0):
        aggregate = aggregator(losses_of(scale * value, 1.0, task=0.0))
        torch.testing.assert_close(aggregate.total.item(), value / ((3 + value) / 2) + 1, rtol=1e-5, atol=0)


@pytest.mark.parametrize("task", [0.0, 2.3, 1e10])
def test_a_path_that_starts_at_zero_has_a_bounded_weight(task: float) -> None:
    aggregator = connected(InitialLoss(over=1), 2)
    floor = max(1e-12, 1e-8 * task)
    for value in (0.0, 1.0, 0.0):
        weights = aggregator(losses_of(value, 1e10, task=task, dtype=torch.float32)).weights
        assert weights[0].item() == pytest.approx(1 / floor, rel=1e-5)
        assert weights[1].item() == pytest.approx(1e-10, rel=1e-5)


def test_weights_stand_still_after_the_first_batches() -> None:
    aggregator = connected(InitialLoss(over=3), 1)
    weights = [aggregator(losses_of(value)).weights.item() for value in (4.0, 2.0, 3.0, 1e9, 0.0, 1e-9)]
    assert weights[2:] == [weights[2]] * 4


def test_evaluation_looks_and_leaves_no_trace() -> None:
    aggregator = connected(InitialLoss(over=3), 1).eval()
    before = {name: value.clone() for name, value in aggregator.state_dict().items()}
    assert aggregator(losses_of(4.0)).weights.item() == 0.25
    assert all(torch.equal(before[name], value) for name, value in aggregator.state_dict().items())


def test_what_losses_were_is_in_checkpoints() -> None:
    saved = connected(InitialLoss(over=1), 1)
    saved(losses_of(4.0))
    restored = connected(InitialLoss(over=1), 1)
    restored.load_state_dict(saved.state_dict())
    assert restored(losses_of(100.0)).weights.item() == 0.25


@pytest.mark.parametrize(
    ("options", "rule"),
    [
        ({"alpha_distill": -1}, "alpha_distill must be a finite number of at least 0, found -1"),
        ({"over": 0}, "over must be a whole number of at least 1, found 0"),
        ({"over": 1.5}, "over must be a whole number of at least 1, found 1.5"),
        ({"epsilon": 0}, "epsilon must be a finite number of at least 1e-30, found 0"),
        ({"epsilon_of_task": -1e-9}, "epsilon_of_task must be a finite number of at least 0, found -1e-09"),
        ({"epsilon_of_task": math.nan}, "epsilon_of_task must be a finite number of at least 0, found nan"),
    ],
)
def test_options_are_checked_at_construction(options: dict[str, Any], rule: str) -> None:
    with pytest.raises(ValueError, match=rule):
        InitialLoss(**options)


MUTANTS = {
    "InitialLoss": [
        ("self.alpha_distill / self.first", "1 / self.first"),
        ("self.alpha_distill / self.first", "self.alpha_distill * self.first"),
        (
            "distributed.mean(torch.cat([losses.paths, losses.task.reshape(1)]))",
            "torch.cat([losses.paths.detach(), losses.task.detach().reshape(1)])",
        ),
        ("over: int = 10", "over: int = 11"),
        (".abs()", "", BENEATH),
        ("self._seen < self.over", "self._seen <= self.over", BENEATH),
        (" & sizes.isfinite()", "", BENEATH),
        ("self._seen += counts", "self._seen += counts.any()", BENEATH),
        (") / seen", ") / self.over", BENEATH),
        ("mean[:-1], floor", "mean[:-1], floor * 0", BENEATH),
        ("self.epsilon_of_task * mean[-1]", "self.epsilon_of_task * mean[-1] * 0", BENEATH),
        (".clamp_min(self.epsilon)", "", BENEATH),
    ],
}
"""Changes of the source that a golden value notices; see test_mutants."""
