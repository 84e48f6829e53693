from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any
from unittest import mock

import pytest
import torch
from aggregator_cases import connected, losses_of

from distill.aggregators import DWA, Aggregator


def run_epoch(aggregator: Aggregator, *batches: tuple[float, ...], task: float = 1.0) -> None:
    for values in batches:
        aggregator(losses_of(*values, task=task))
    aggregator.after_epoch()


def golden_ratios(make: Callable[..., Aggregator]) -> None:
    # Epoch means (3, 6), then (1.5, 6): r = (1/2, 1), r / 2 = (1/4, 1/2); shares 1 / (1 + e^(1/4)) and the rest.
    # Weights alpha n p with alpha = 1/2, n = 2: p itself.  Before that, weights alpha.
    aggregator = connected(make(alpha_distill=0.5), 2)
    run_epoch(aggregator, (2.0, 4.0), (4.0, 8.0))
    run_epoch(aggregator, (1.0, 6.0), (2.0, 6.0))
    share = 1 / (1 + math.exp(0.25))
    aggregate = aggregator(losses_of(1.0, 10.0))
    torch.testing.assert_close(aggregate.weights.tolist(), [share, 1 - share])
    torch.testing.assert_close(aggregate.total.item(), 1 + share + 10 * (1 - share))
    # The batch just seen makes the third epoch: means (1, 10), r = (2/3, 5/3); temperature is 2.
    aggregator.after_epoch()
    share = 1 / (1 + math.exp(0.5))
    torch.testing.assert_close(aggregator(losses_of(1.0, 1.0)).weights.tolist(), [share, 1 - share])


def golden_first_epochs(make: Callable[..., Aggregator]) -> None:
    aggregator = connected(make(alpha_distill=0.5), 2)
    for last in (20.0, 5.0):
        assert aggregator(losses_of(1.0, 10.0)).weights.tolist() == [0.5, 0.5]
        run_epoch(aggregator, (1.0, last))
    assert aggregator(losses_of(1.0, 10.0)).weights.tolist() != [0.5, 0.5]


def golden_task(make: Callable[..., Aggregator]) -> None:
    # Task 4, then 1; path 2, then 2: r = (1/4, 1), temperature 1/4: shares of (1, 4): e^-3 apart.  alpha = 3.
    aggregator = connected(make(alpha_distill=3.0, temperature=0.25, include_task=True), 1)
    run_epoch(aggregator, (2.0,), task=4.0)
    run_epoch(aggregator, (2.0,), task=1.0)
    losses = losses_of(5.0, task=2.0)
    aggregate = aggregator(losses)
    aggregate.total.backward()
    path = 2 / (1 + math.exp(-3))
    torch.testing.assert_close(losses.task.grad.item(), 2 - path)
    torch.testing.assert_close(losses.paths.grad.tolist(), [3 * path])
    torch.testing.assert_close(aggregate.weights.tolist(), [3 * path])
    torch.testing.assert_close(aggregate.total.item(), 2 * (2 - path) + 15 * path)


def golden_no_ratio(make: Callable[..., Aggregator]) -> None:
    # Means (0, 2, -1), then (5, 0, 3): none has a ratio; all count as unchanged, so weights are alpha.
    aggregator = connected(make(), 3)
    run_epoch(aggregator, (0.0, 2.0, -1.0))
    run_epoch(aggregator, (5.0, 0.0, 3.0))
    torch.testing.assert_close(aggregator(losses_of(1.0, 1.0, 1.0)).weights.tolist(), [1.0, 1.0, 1.0])


def golden_waiting(make: Callable[..., Aggregator]) -> None:
    # The first loss is 0 in half of an epoch: its mean is of the other half, 4, and 2 in the next one: r = (1/2, 1).
    aggregator = connected(make(), 2)
    run_epoch(aggregator, (0.0, 3.0), (4.0, 3.0))
    run_epoch(aggregator, (2.0, 3.0), (2.0, 3.0))
    share = 1 / (1 + math.exp(0.25))
    torch.testing.assert_close(aggregator(losses_of(1.0, 1.0)).weights.tolist(), [2 * share, 2 - 2 * share])


def golden_mean_over_ranks(make: Callable[..., Aggregator]) -> None:
    # This rank sees no change; the mean over all ranks of the first loss halves: r = (1/2, 1) as above.
    aggregator = connected(make(), 2)
    for factors in ((2.0, 1.0), (1.0, 1.0)):
        with mock.patch("distill.distributed.mean", lambda values, f=factors: torch.tensor(f) * values.detach()):
            run_epoch(aggregator, (3.0, 3.0))
    share = 1 / (1 + math.exp(0.25))
    torch.testing.assert_close(aggregator(losses_of(1.0, 1.0)).weights.tolist(), [2 * share, 2 - 2 * share])


GOLDENS = {
    "DWA": (
        golden_ratios,
        golden_first_epochs,
        golden_task,
        golden_no_ratio,
        golden_waiting,
        golden_mean_over_ranks,
    )
}


def test_equals_an_independent_implementation_epoch_by_epoch() -> None:
    scalarization = pytest.importorskip("torchjd.scalarization")
    ours, theirs = connected(DWA(temperature=0.5, include_task=True), 3), scalarization.DWA(temperature=0.5)
    generator = torch.Generator().manual_seed(0)
    for _ in range(6):
        for _ in range(3):
            values = torch.rand(4, generator=generator, dtype=torch.float64) * torch.tensor([1, 10, 1e-3, 1e3]) + 1e-6
            task, *paths = values.tolist()
            torch.testing.assert_close(ours(losses_of(*paths, task=task)).total, theirs(values))
        ours.after_epoch()
        theirs.step()


@pytest.mark.parametrize(
    "means", [((1e-10, 1.0), (1e10, 1.0)), ((1e-300, 1.0), (1e300, 1.0)), ((-5.0, 1.0), (2.0, 1.0))]
)
def test_weights_are_bounded_whatever_the_losses_do(means: tuple[tuple[float, ...], ...]) -> None:
    aggregator = connected(DWA(alpha_distill=0.5), 2)
    for epoch in (*means, *reversed(means)):
        run_epoch(aggregator, epoch)
        weights = aggregator(losses_of(1.0, 1.0)).weights
        assert weights.sum().item() == pytest.approx(1.0)
        assert ((weights >= 0) & (weights <= 1)).all()


def test_an_evaluation_is_not_part_of_an_epoch() -> None:
    aggregator, other = (connected(DWA(), 2) for _ in range(2))
    for values in ((1.0, 2.0), (2.0, 1.0)):
        aggregator.eval()
        aggregator(losses_of(1e6, 1.0))
        aggregator.train()
        run_epoch(aggregator, values)
        run_epoch(other, values)
    assert torch.equal(aggregator(losses_of(1.0, 1.0)).weights, other(losses_of(1.0, 1.0)).weights)


@pytest.mark.parametrize(
    ("options", "rule"),
    [
        ({"alpha_distill": -1}, "alpha_distill must be a finite number of at least 0, found -1"),
        ({"temperature": 0}, "temperature must be a finite number above 0, found 0"),
        ({"temperature": math.inf}, "temperature must be a finite number above 0, found inf"),
    ],
)
def test_options_are_checked_at_construction(options: dict[str, Any], rule: str) -> None:
    with pytest.raises(ValueError, match=rule):
        DWA(**options)


MUTANTS = {
    "DWA": [
        ("ratio / self.temperature", "-ratio / self.temperature"),
        ("ratio / self.temperature", "ratio * self.temperature"),
        ("temperature: float = 2.0", "temperature: float = 1.0"),
        ("len(ratio) * torch", "torch"),
        ("self._newer / self._older.masked", "self._older / self._newer.masked"),
        ("        self._sum.zero_()\n", ""),
        ("        self._count.zero_()\n", ""),
        ("        self._older.copy_(self._newer)\n", ""),
        ("self._sum / self._count.clamp_min(1)", "self._sum"),
        ("(self._older > 0) & (self._newer > 0)", "self._older > 0"),
        ("(self._older > 0) & (self._newer > 0)", "self._newer > 0"),
        ("mean != 0", "mean == mean"),
        ("distributed.mean(values)", "values.detach()"),
        ("alpha_distill=self.alpha_distill)", "alpha_distill=1.0)"),
        ("weights[0] * losses.task", "losses.task", "distill.aggregators.with_task"),
        ("alpha_distill * weights[1:]", "weights[1:]", "distill.aggregators.with_task"),
    ],
}
"""Changes of the source that a golden value notices; see test_mutants."""
