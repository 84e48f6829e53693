from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any
from unittest import mock

import pytest
import torch
from aggregator_cases import connected, losses_of
from torch import Tensor

from distill.aggregators import FAMO, Aggregator
from distill.aggregators.needs import Needs


def logits_of(aggregator: Aggregator) -> Tensor:
    return dict(aggregator.named_buffers())["_logits"]


def set_logits(aggregator: Aggregator, *values: float) -> None:
    logits_of(aggregator).copy_(torch.tensor(values, dtype=torch.float64))


def golden_weights(make: Callable[..., Aggregator]) -> None:
    # w = (ln 3, 0): z = (3/4, 1/4).  L = (4, 2): z / L = (3/16, 1/8), with sum 5/16: weights alpha (3/5, 2/5).
    # Gradients add up to those of c log L: alpha = 1/2: 1 + 1/2 (3/5 * 4 + 2/5 * 2) = 2.6.
    aggregator = connected(make(alpha_distill=0.5, epsilon=1e-12), 2)
    set_logits(aggregator, math.log(3), 0.0)
    losses = losses_of(4.0, 2.0)
    aggregate = aggregator(losses)
    aggregate.total.backward()
    torch.testing.assert_close(aggregate.weights.tolist(), [0.3, 0.2])
    torch.testing.assert_close(losses.paths.grad.tolist(), [0.3, 0.2])
    torch.testing.assert_close(losses.task.grad.item(), 1.0)
    torch.testing.assert_close(aggregate.total.item(), 2.6)


def golden_epsilon(make: Callable[..., Aggregator]) -> None:
    # z = (1/2, 1/2), L + 1 = (2, 4): shares of (1/2, 1/4) are (2/3, 1/3).
    aggregator = connected(make(epsilon=1.0), 2)
    torch.testing.assert_close(aggregator(losses_of(1.0, 3.0)).weights.tolist(), [2 / 3, 1 / 3])


def golden_zero(make: Callable[..., Aggregator]) -> None:
    # A loss of 0 takes nothing: of (0, 2, 2) the others share all; where all are 0, so are the weights.
    torch.testing.assert_close(connected(make(), 3)(losses_of(0.0, 2.0, 2.0)).weights.tolist(), [0.0, 0.5, 0.5])
    assert connected(make(), 2)(losses_of(0.0, 0.0)).weights.tolist() == [0.0, 0.0]


def golden_steps(make: Callable[..., Aggregator]) -> None:
    # w = 0, L: (4, 4) -> (4/e^2, 4): delta = (2, 0), slopes z (delta - 1) = (1/2, -1/2) without decay.
    # Adam's first step is 0.1 against the sign: w = (-0.1, 0.1), whatever the size.
    aggregator = connected(make(learning_rate=0.1, gamma=0.0, epsilon=1e-12), 2)
    aggregator(losses_of(4.0, 4.0))
    aggregator.after_step(torch.tensor([4 / math.exp(2), 4.0], dtype=torch.float64))
    torch.testing.assert_close(logits_of(aggregator).tolist(), [-0.1, 0.1], rtol=1e-6, atol=0)
    # Nothing falls: slopes 0, moments decay: m = 0.9 * 0.1 g / (1 - 0.81), v = 0.999 * 0.001 g^2 / (1 - 0.999^2).
    aggregator(losses_of(4.0, 4.0))
    aggregator.after_step(torch.tensor([4.0, 4.0], dtype=torch.float64))
    step = 0.1 * (0.09 / 0.19) / math.sqrt(0.000999 / 0.001999)
    torch.testing.assert_close(logits_of(aggregator).tolist(), [-0.1 - step, 0.1 + step], rtol=1e-6, atol=0)


def golden_size_of_a_slope(make: Callable[..., Aggregator]) -> None:
    # w = (ln 3, 0), z = (3/4, 1/4), delta (1, 0): the second logit's slope is 1/4 (0 - 3/4) = -3/16.  Then w = (0, 0),
    # delta (0, 2): 1/2 (2 - 1) = 1/2, which is -8/3 of the first.  So Adam's second step has the moments
    # (0.09 - 0.1 * 8/3) / 0.19 and (0.000999 + 0.001 * 64/9) / 0.001999, times the first slope, below 0.
    aggregator = connected(make(learning_rate=0.1, gamma=0.0, epsilon=1e-12), 2)
    for logits, again in (((math.log(3), 0.0), (1.0, math.e)), ((0.0, 0.0), (math.e, math.exp(-1)))):
        set_logits(aggregator, *logits)
        aggregator(losses_of(math.e, math.e))
        aggregator.after_step(torch.tensor(again, dtype=torch.float64))
    moved = 0.1 * (0.09 - 0.8 / 3) / 0.19 / math.sqrt((0.000999 + 0.064 / 9) / 0.001999)
    torch.testing.assert_close(logits_of(aggregator)[1].item(), moved, rtol=1e-6, atol=0)


def golden_defaults(make: Callable[..., Aggregator]) -> None:
    # w = (1, 0): z_1 z_2 = 0.197.  The first loss rises by e^0.05: slope 0.197 * -0.05 + 0.001 < 0, a step of 0.025.
    aggregator = connected(make(), 2)
    set_logits(aggregator, 1.0, 0.0)
    aggregator(losses_of(4.0, 4.0))
    aggregator.after_step(torch.tensor([4 * math.exp(0.05), 4.0], dtype=torch.float64))
    torch.testing.assert_close(logits_of(aggregator)[0].item(), 1.025, rtol=1e-6, atol=0)


def golden_decay(make: Callable[..., Aggregator]) -> None:
    # No loss moves: the slope is gamma * w alone, of which Adam makes a step of 0.025.
    aggregator = connected(make(gamma=0.5), 2)
    set_logits(aggregator, 1.0, 0.0)
    aggregator(losses_of(4.0, 4.0))
    aggregator.after_step(torch.tensor([4.0, 4.0], dtype=torch.float64))
    torch.testing.assert_close(logits_of(aggregator).tolist(), [0.975, 0.0], rtol=1e-6, atol=1e-9)


def golden_mean_over_ranks(make: Callable[..., Aggregator]) -> None:
    # The means over the ranks are (4, 2), as in the first golden value, and what falls is measured from there.
    aggregator = connected(make(gamma=0.0, epsilon=1e-12), 2)
    set_logits(aggregator, math.log(3), 0.0)
    means = torch.tensor([4.0, 2.0], dtype=torch.float64)
    with mock.patch("distill.distributed.mean", return_value=means):
        aggregate = aggregator(losses_of(1.0, 1.0))
    torch.testing.assert_close(aggregate.weights.tolist(), [0.6, 0.4])
    aggregator.after_step(torch.tensor([2.0, 2.0], dtype=torch.float64))
    torch.testing.assert_close(logits_of(aggregator).tolist(), [math.log(3) - 0.025, 0.025], rtol=1e-6, atol=0)


GOLDENS = {
    "FAMO": (
        golden_weights,
        golden_epsilon,
        golden_zero,
        golden_steps,
        golden_size_of_a_slope,
        golden_decay,
        golden_defaults,
        golden_mean_over_ranks,
    )
}


def test_equals_an_independent_implementation_step_by_step() -> None:
    scalarization = pytest.importorskip("torchjd.scalarization")
    ours, theirs = connected(FAMO(learning_rate=0.1, gamma=0.01), 4), scalarization.FAMO(4, lr=0.1, weight_decay=0.01)
    theirs.double()
    generator = torch.Generator().manual_seed(0)
    scales = torch.tensor([1e-6, 1.0, 1e6, 1e-2], dtype=torch.float64)
    for _ in range(30):
        before, after = (scales * (0.1 + torch.rand(4, generator=generator, dtype=torch.float64)) for _ in range(2))
        losses = losses_of(*before.tolist(), task=0.0)
        ours(losses).total.backward()
        values = before.clone().requires_grad_()
        theirs(values).backward()
        torch.testing.assert_close(losses.paths.grad, values.grad, rtol=1e-9, atol=0)
        ours.after_step(after)
        theirs.update(after)


def test_the_path_that_falls_faster_loses_weight() -> None:
    aggregator = connected(FAMO(), 2)
    for _ in range(100):
        weights = aggregator(losses_of(1.0, 1.0)).weights
        aggregator.after_step(torch.tensor([0.9, 1.0], dtype=torch.float64))
    assert weights[0] < 0.2
    assert weights.sum().item() == pytest.approx(1.0)


@pytest.mark.parametrize("values", [(0.0, 1.0), (0.0, 0.0), (1e-10, 1e10), (5.0, 5.0)])
def test_weights_stay_within_their_sum(values: tuple[float, ...]) -> None:
    aggregator = connected(FAMO(alpha_distill=0.5), 2)
    for _ in range(300):
        weights = aggregator(losses_of(*values)).weights
        aggregator.after_step(torch.tensor([values[0], values[1] * 0.5], dtype=torch.float64))
        assert weights.sum().item() == pytest.approx(0.5 if any(values) else 0.0)
        assert ((weights >= 0) & (weights <= 0.5)).all()
    assert logits_of(aggregator).isfinite().all()


@pytest.mark.parametrize("poison", [math.nan, math.inf])
@pytest.mark.parametrize("behind", [False, True], ids=["before the step", "behind it"])
def test_what_is_not_finite_moves_no_logit(poison: float, behind: bool) -> None:
    aggregator, other = (connected(FAMO(), 2) for _ in range(2))
    clean, poisoned = torch.tensor([0.5, 1.0], dtype=torch.float64), torch.tensor([poison, 1.0], dtype=torch.float64)
    for each in (aggregator, other):
        each(losses_of(1.0, 1.0))
        each.after_step(clean)
    aggregator(losses_of(1.0 if behind else poison, 1.0))
    aggregator.after_step(poisoned if behind else clean)
    for each in (aggregator, other):
        each(losses_of(1.0, 1.0))
        each.after_step(clean)
    for name, value in other.state_dict().items():
        assert torch.equal(aggregator.state_dict()[name], value), name


def test_a_loss_that_rounding_brought_below_zero_counts_as_zero() -> None:
    aggregator = connected(FAMO(), 2)
    assert aggregator(losses_of(-1e-6, 1.0)).weights.tolist() == [0.0, 1.0]
    aggregator.after_step(torch.tensor([-2e-6, 0.5], dtype=torch.float64))
    assert logits_of(aggregator)[0] > logits_of(aggregator)[1]


def test_wants_a_second_look_and_says_so() -> None:
    aggregator = connected(FAMO(), 2)
    assert aggregator.needs == Needs(second_look=True)
    with pytest.raises(ValueError, match="give after_step the same batch's once more"):
        aggregator.after_step()


def test_all_state_is_saved_and_none_of_it_trained() -> None:
    aggregator = connected(FAMO(), 2)
    assert set(aggregator.state_dict()) == {"_logits", "_before", "adam._mean", "adam._square", "adam._steps"}
    assert not list(aggregator.parameters())


@pytest.mark.parametrize(
    ("options", "rule"),
    [
        ({"alpha_distill": -1}, "alpha_distill must be a finite number of at least 0, found -1"),
        ({"learning_rate": 0}, "learning_rate must be a finite number above 0, found 0"),
        ({"gamma": -1}, "gamma must be a finite number of at least 0, found -1"),
        ({"epsilon": 0}, "epsilon must be a finite number above 0, found 0"),
    ],
)
def test_options_are_checked_at_construction(options: dict[str, Any], rule: str) -> None:
    with pytest.raises(ValueError, match=rule):
        FAMO(**options)


ADAM = "distill.aggregators.buffered_adam"

MUTANTS = {
    "FAMO": [
        ("/ (mean + self.epsilon)", "* (mean + self.epsilon)"),
        ("/ (mean + self.epsilon)", "/ mean"),
        (" * (mean > 0)", ""),
        (".clamp_min(torch.finfo(shares.dtype).tiny)", ""),
        ("self.alpha_distill * shares", "shares"),
        ("/ shares.sum().clamp", "/ torch.ones_like(mean).clamp"),
        ("distributed.mean(losses.paths)", "losses.paths.detach()"),
        ("            self._before.copy_(mean)\n", "            pass\n"),
        ("self._before + self.epsilon).log() - (", "self._before + self.epsilon).log() + ("),
        ("shares * (delta - (shares * delta).sum())", "shares * delta"),
        ("shares * (delta - (shares * delta).sum())", "-shares * (delta - (shares * delta).sum())"),
        ("shares * (delta - (shares * delta).sum())", "delta - (shares * delta).sum()"),
        ("learning_rate: float = 0.025", "learning_rate: float = 0.01"),
        ("gamma: float = 1e-3", "gamma: float = 1.0"),
        ("self.weight_decay * values", "self.weight_decay", ADAM),
        ("values - self.learning_rate", "values + self.learning_rate", ADAM),
        ("(0.9, 0.999)", "(0.9, 0.99)", ADAM),
        ("(0.9, 0.999)", "(0.5, 0.999)", ADAM),
        ("** steps)).sqrt() +", "** steps)) +", ADAM),
        ("/ (1 - self.betas[0] ** steps)", "", ADAM),
        ("/ (1 - self.betas[1] ** steps)", "", ADAM),
    ],
}
"""Changes of the source that a golden value notices; see test_mutants."""
