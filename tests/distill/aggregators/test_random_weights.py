from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from aggregator_cases import connected, losses_of

from distill.aggregators import Aggregator, RandomWeights


def set_draw(aggregator: Aggregator, *values: float) -> None:
    dict(aggregator.named_buffers())["_draw"].copy_(torch.tensor(values, dtype=torch.float64))


def weights_of(aggregator: Aggregator, steps: int = 1) -> torch.Tensor:
    """Return the weights `[step, key]` of some steps."""
    found = []
    for _ in range(steps):
        aggregator.advance(0.0)
        found.append(aggregator(losses_of(*[1.0] * len(aggregator.keys))).weights)
    return torch.stack(found)


def golden_softmax(make: Callable[..., Aggregator]) -> None:
    # z = (ln 3, 0): shares (3/4, 1/4); alpha = 1/2, n = 2: 1 + 3/4 * 4 + 1/4 * 2 = 4.5.
    aggregator = connected(make(alpha_distill=0.5), 2)
    set_draw(aggregator, math.log(3), 0.0)
    aggregate = aggregator(losses_of(4.0, 2.0))
    torch.testing.assert_close(aggregate.weights.tolist(), [0.75, 0.25])
    torch.testing.assert_close(aggregate.total.item(), 4.5)


def golden_task(make: Callable[..., Aggregator]) -> None:
    # z = (ln 3, 0) of task and path, n = 2, alpha = 4: task 3/2, path 4 * 1/2.
    aggregator = connected(make(alpha_distill=4.0, include_task=True), 1)
    set_draw(aggregator, math.log(3), 0.0)
    losses = losses_of(5.0, task=2.0)
    aggregate = aggregator(losses)
    aggregate.total.backward()
    torch.testing.assert_close(losses.task.grad.item(), 1.5)
    torch.testing.assert_close(losses.paths.grad.tolist(), [2.0])
    torch.testing.assert_close(aggregate.total.item(), 13.0)


def golden_draws(make: Callable[..., Aggregator]) -> None:
    # log w_i - log w_j is a difference of standard normals: mean 0, variance 2, and no step depends on another.
    drawn = weights_of(connected(make(), 2), 500).log()
    differences = drawn[:, 0] - drawn[:, 1]
    assert abs(differences.mean()) < 0.3
    assert 1.5 < differences.var() < 2.5
    assert abs((differences[1:] * differences[:-1]).mean()) < 0.4


def golden_seed(make: Callable[..., Aggregator]) -> None:
    first, same, other = (weights_of(connected(make(seed=seed), 3), 2) for seed in (1, 1, 2))
    assert torch.equal(first, same)
    assert not torch.isclose(first, other).any()
    assert not torch.isclose(first[0], first[1]).any()


GOLDENS = {"RandomWeights": (golden_softmax, golden_task, golden_draws, golden_seed)}


def test_the_global_generator_is_neither_used_nor_moved() -> None:
    aggregators = [connected(RandomWeights(), 3) for _ in range(2)]
    torch.manual_seed(0)
    first = weights_of(aggregators[0], 3)
    state = torch.get_rng_state()
    torch.manual_seed(0)
    assert torch.equal(state, torch.get_rng_state())
    torch.manual_seed(5)
    assert torch.equal(first, weights_of(aggregators[1], 3))


def test_batches_of_one_step_share_their_draw() -> None:
    aggregator = connected(RandomWeights(), 2)
    aggregator.advance(0.0)
    assert torch.equal(aggregator(losses_of(1.0, 1.0)).weights, aggregator(losses_of(2.0, 1.0)).weights)


def test_weights_add_up_to_their_number_and_are_alpha_on_the_average() -> None:
    drawn = weights_of(connected(RandomWeights(alpha_distill=0.5), 4), 2000)
    torch.testing.assert_close(drawn.sum(dim=1), torch.full((2000,), 2.0, dtype=torch.float64))
    torch.testing.assert_close(drawn.mean(dim=0), torch.full((4,), 0.5, dtype=torch.float64), rtol=0.05, atol=0)


def test_one_path_has_weight_alpha_and_a_negative_loss_changes_nothing() -> None:
    aggregator = connected(RandomWeights(alpha_distill=0.3), 1)
    aggregator.advance(0.0)
    assert aggregator(losses_of(-1e10)).weights.item() == 0.3


@pytest.mark.parametrize(
    ("options", "rule"),
    [
        ({"alpha_distill": math.nan}, "alpha_distill must be a finite number of at least 0, found nan"),
        ({"seed": -1}, "seed must be a whole number of at least 0, found -1"),
        ({"seed": 0.5}, "seed must be a whole number of at least 0, found 0.5"),
    ],
)
def test_options_are_checked_at_construction(options: dict[str, Any], rule: str) -> None:
    with pytest.raises(ValueError, match=rule):
        RandomWeights(**options)


MUTANTS = {
    "RandomWeights": [
        ("torch.randn(self._draw.shape", "torch.rand(self._draw.shape"),
        ("derive_seed(self.seed, ", "derive_seed("),
        (', "random weights", self._step)', ', "random weights", 0)'),
        ("torch.softmax(self._draw", "torch.softmax(-self._draw"),
        ("len(self._draw) * torch", "torch"),
        ("alpha_distill=self.alpha_distill)", "alpha_distill=1.0)"),
        ("weights[0] * losses.task", "losses.task", "distill.aggregators.with_task"),
    ],
}
"""Changes of the source that a golden value notices; see test_mutants."""
