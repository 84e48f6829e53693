from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any
from unittest import mock

import pytest
import torch
from aggregator_cases import connected, losses_of

from distill.aggregators import Aggregator, Chebyshev


def golden_smooth_maximum(make: Callable[..., Aggregator]) -> None:
    # mu = 2, alpha = 1/2, L = (2 ln 3, 0), L_task = 1: z / mu = (ln 3, 0), exponentials 3 and 1, shares (3/4, 1/4).
    # Total 1 + 1/2 * 2 * ln 4, weights 1/2 (3/4, 1/4).
    losses = losses_of(2 * math.log(3), 0.0)
    aggregate = connected(make(temperature=2.0, alpha_distill=0.5, relative=False), 2)(losses)
    aggregate.total.backward()
    torch.testing.assert_close(aggregate.total.item(), 1 + math.log(4))
    torch.testing.assert_close(aggregate.weights.tolist(), [0.375, 0.125])
    torch.testing.assert_close(losses.paths.grad.tolist(), [0.375, 0.125])
    torch.testing.assert_close(losses.task.grad.item(), 1.0)


def golden_weights(make: Callable[..., Aggregator]) -> None:
    # mu = 1, w = (2, 4), L = (ln 3, ln 3 / 4): z = (2 ln 3, ln 3), exponentials 9 and 3, shares (3/4, 1/4).
    # Total 1 + ln 12, weights (2 * 3/4, 4 * 1/4).
    options: dict[str, Any] = {"temperature": 1.0, "weights": {"b": 4.0, "a": 2.0}, "relative": False}
    aggregate = connected(make(**options), 2)(losses_of(math.log(3), math.log(3) / 4))
    torch.testing.assert_close(aggregate.total.item(), 1 + math.log(12))
    torch.testing.assert_close(aggregate.weights.tolist(), [1.5, 1.0])


def golden_relative_losses(make: Callable[..., Aggregator]) -> None:
    # First losses (4, 2).  Then L = (4, 1): z = (1, 1/2); with mu = 1/2 / ln 3 the shares are (3/4, 1/4) and
    # weights (3/4 / 4, 1/4 / 2).  z / mu = (2 ln 3, ln 3): total 1 + mu ln(9 + 3).
    temperature = 0.5 / math.log(3)
    aggregator = connected(make(temperature=temperature, over=1), 2)
    torch.testing.assert_close(aggregator(losses_of(4.0, 2.0)).weights.tolist(), [1 / 8, 1 / 4])
    aggregate = aggregator(losses_of(4.0, 1.0))
    torch.testing.assert_close(aggregate.weights.tolist(), [3 / 16, 1 / 8])
    torch.testing.assert_close(aggregate.total.item(), 1 + temperature * math.log(12))


def golden_mean_over_ranks(make: Callable[..., Aggregator]) -> None:
    # This rank has L = (ln 3, 0), the mean over all ranks is (2 ln 3, 0): shares (9/10, 1/10), value ln 10.
    losses = losses_of(math.log(3), 0.0)
    aggregator = connected(make(temperature=1.0, relative=False), 2)
    with mock.patch("distill.distributed.mean", lambda values: 2 * values.detach()):
        aggregate = aggregator(losses)
    torch.testing.assert_close(aggregate.total.item(), 1 + math.log(10))
    torch.testing.assert_close(aggregate.weights.tolist(), [0.9, 0.1])


GOLDENS = {"Chebyshev": (golden_smooth_maximum, golden_weights, golden_relative_losses, golden_mean_over_ranks)}


@pytest.mark.parametrize("temperature", [1e-6, 0.01, 1.0, 1e6])
@pytest.mark.parametrize("values", [(0.2, 3.0, 40.0), (1e-10, 1e10), (1e10,), (5.0, 5.0, 5.0, 5.0), (-3.0, 2.0)])
def test_equals_the_published_scalarization(values: tuple[float, ...], temperature: float) -> None:
    scalarization = pytest.importorskip("torchjd.scalarization")
    weights = [1.0 + index / 2 for index in range(len(values))]
    by_name = dict(zip("abcd", weights, strict=False))
    losses = losses_of(*values, task=0.0)
    total = connected(Chebyshev(temperature, by_name, relative=False), len(values))(losses).total
    total.backward()
    theirs = torch.tensor(values, dtype=torch.float64, requires_grad=True)
    wanted = scalarization.STCH(temperature, torch.tensor(weights, dtype=torch.float64))(theirs)
    wanted.backward()
    torch.testing.assert_close(total, wanted)
    torch.testing.assert_close(losses.paths.grad, theirs.grad)


def test_one_path_counts_as_it_does_elsewhere() -> None:
    aggregate = connected(Chebyshev(0.01, relative=False), 1)(losses_of(7.0))
    assert aggregate.total.item() == 8.0
    assert aggregate.weights.item() == 1.0


def test_equal_losses_share_the_weight() -> None:
    weights = connected(Chebyshev(alpha_distill=2.0), 4)(losses_of(5.0, 5.0, 5.0, 5.0)).weights
    torch.testing.assert_close(weights, torch.full((4,), 0.1, dtype=torch.float64))


def test_the_path_that_lags_counts_most_whatever_its_scale() -> None:
    aggregator = connected(Chebyshev(temperature=0.05, over=1), 2)
    aggregator(losses_of(1e-6, 1e6))
    contributions = aggregator(losses_of(0.9e-6, 0.3e6)).weights * torch.tensor([1e-6, 1e6])
    assert contributions[0] > 0.99
    assert contributions[1] < 0.01


@pytest.mark.parametrize("relative", [False, True])
@pytest.mark.parametrize("temperature", [1e-6, 1e6])
@pytest.mark.parametrize("values", [(), (0.0,), (0.0, 0.0), (1e-10, 1e10), (1e37, 1e37), (-1e10, 1.0), (-1e30, 1e30)])
def test_stays_finite(values: tuple[float, ...], temperature: float, relative: bool) -> None:
    aggregator = connected(Chebyshev(temperature, relative=relative, over=1), len(values))
    for _ in range(2):
        losses = losses_of(*values, task=0.5, dtype=torch.float32)
        aggregate = aggregator(losses)
        aggregate.total.backward()
        assert aggregate.total.isfinite()
        assert aggregate.weights.isfinite().all()
        if not relative:
            assert aggregate.weights.sum().item() == pytest.approx(1.0 if values else 0.0)


def test_a_path_of_weight_zero_is_off() -> None:
    weights = connected(Chebyshev(weights={"a": 0, "b": 1}), 2)(losses_of(3.0, 4.0)).weights
    assert weights[0].item() == 0
    assert weights[1].item() > 0


def test_first_losses_are_state_where_they_count() -> None:
    assert set(connected(Chebyshev(), 2).state_dict()) == {"first._mean", "first._seen"}
    assert not connected(Chebyshev(relative=False), 2).state_dict()


@pytest.mark.parametrize(
    ("options", "rule"),
    [
        ({"temperature": 0}, "temperature must be a finite number of at least 1e-06, found 0"),
        ({"temperature": math.nan}, "temperature must be a finite number of at least 1e-06, found nan"),
        ({"weights": {"a": -1}}, r"weights\.a must be a finite number of at least 0, found -1"),
        ({"alpha_distill": -1}, "alpha_distill must be a finite number of at least 0, found -1"),
        ({"over": 0}, "over must be a whole number of at least 1, found 0"),
    ],
)
def test_options_are_checked_at_construction(options: dict[str, Any], rule: str) -> None:
    with pytest.raises(ValueError, match=rule):
        Chebyshev(**options)


def test_every_path_has_a_weight_and_every_weight_a_path() -> None:
    rule = "paths without a weight: b; weights without a path: c; paths: a, b"
    with pytest.raises(ValueError, match=rule):
        connected(Chebyshev(weights={"a": 1, "c": 1}), 2)


MUTANTS = {
    "Chebyshev": [
        (
            "distributed.mean(torch.cat([losses.paths, losses.task.reshape(1)]))",
            "torch.cat([losses.paths.detach(), losses.task.detach().reshape(1)])",
        ),
        ("factors / self.first(means)", "factors * self.first(means)"),
        ("(scaled - largest) / self.temperature", "(scaled - largest) * self.temperature"),
        ("(scaled - largest) / self.temperature", "(largest - scaled) / self.temperature"),
        ("self.alpha_distill * factors * distances", "self.alpha_distill * distances"),
        ("self.alpha_distill * factors * distances", "factors * distances"),
        ("(largest + self.temperature * distances", "(self.temperature * distances"),
        ("+ self.temperature * distances.logsumexp", "+ distances.logsumexp"),
        ("[weights[key] for key in self.keys]", "[*weights.values()]"),
        ("relative: bool = True", "relative: bool = False"),
    ],
}
"""Changes of the source that a golden value notices; see test_mutants."""
