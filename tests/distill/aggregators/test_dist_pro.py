from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any
from unittest import mock

import pytest
import torch
from aggregator_cases import connected, losses_with_rows
from torch import Tensor

from distill.aggregators import Aggregator, DistPro, Losses
from distill.aggregators.dist_pro import LARGEST_LOGIT
from distill.aggregators.needs import Needs

TASK = [0.0, 0.0]


def step(
    aggregator: Aggregator,
    rows: Sequence[Sequence[float]],
    held_out: Sequence[float] | None,
    *values: float,
    task: float = 1.0,
) -> list[float]:
    """Make one step with these gradients of the paths, and this one of the held-out loss; return its weights."""
    aggregator.advance(0.0)
    losses, _ = losses_with_rows(torch.tensor([TASK, *rows], dtype=torch.float64), *values, task=task)
    found: list[float] = aggregator(losses).weights.tolist()
    look = None if held_out is None else torch.tensor(held_out, dtype=torch.float64)
    aggregator.after_step(None, None if look is None else {"all": look, "last": look})
    return found


def logits_of(aggregator: Aggregator) -> Tensor:
    return dict(aggregator.named_buffers())["_logits"]


def golden_shares(make: Callable[..., Aggregator]) -> None:
    # theta = (ln 3, ln 2), and 0 for the slot: p = (3, 2, 1) / 6.  Sum of weights 0.5 * 2; first losses (4, 10).
    aggregator = connected(make(alpha_distill=0.5, every=1), 2)
    logits_of(aggregator).copy_(torch.tensor([math.log(3), math.log(2)], dtype=torch.float64))
    torch.testing.assert_close(step(aggregator, [TASK, TASK], TASK, 4.0, 10.0), [0.5 / 4, 1 / 30])
    # Without relation to them, at equal logits: a third each of 0.5 * 2.
    absolute = connected(make(alpha_distill=0.5, every=1, relative=False), 2)
    torch.testing.assert_close(step(absolute, [TASK, TASK], TASK, 4.0, 10.0), [1 / 3, 1 / 3])


def golden_slopes(make: Callable[..., Aggregator]) -> None:
    # Adam's first step is the learning rate against the sign.  Held-out gradient (1, 0), the paths' (1, 5) and (-2, 1):
    # falls 2 (1, -2), their mean with the slot's 0 is -2/3, and slopes are -1/3 (2 + 2/3, -4 + 2/3) = (-8/9, 10/9).
    options = {"every": 1, "relative": False, "learning_rate": 0.25}
    aggregator = connected(make(**options), 2)
    step(aggregator, [[1.0, 5.0], [-2.0, 1.0]], [1.0, 0.0])
    torch.testing.assert_close(logits_of(aggregator).tolist(), [0.25, -0.25])
    # Both help, the second more: falls 2 (1, 4), with the slot's 0 a mean of 10/3, slopes -1/3 (-4/3, 14/3).  The first
    # one loses to the second, though it helps.
    aggregator = connected(make(**options), 2)
    step(aggregator, [[1.0, 0.0], [4.0, 0.0]], [1.0, 0.0])
    torch.testing.assert_close(logits_of(aggregator).tolist(), [-0.25, 0.25])


def golden_waiting(make: Callable[..., Aggregator]) -> None:
    # Shares of 1/4, falls 3 (1, 0.4, none).  Over the two that pull and the slot the mean is (3 + 1.2) / 3 = 1.4, which
    # the second does not reach; over all four it would be 1.05.  The third stays, and then starts as any path does:
    # Adam's first step is the learning rate.
    aggregator = connected(make(every=1, relative=False, learning_rate=0.25), 3)
    step(aggregator, [[1.0, 0.0], [0.4, 0.0], [0.0, 0.0]], [1.0, 0.0])
    torch.testing.assert_close(logits_of(aggregator).tolist(), [0.25, -0.25, 0.0])
    step(aggregator, [[1.0, 0.0], [0.4, 0.0], [0.0, 0.0]], [1.0, 0.0])
    step(aggregator, [[1.0, 0.0], [0.4, 0.0], [9.0, 0.0]], [1.0, 0.0])
    torch.testing.assert_close(logits_of(aggregator)[2].item(), 0.25)


def golden_slot(make: Callable[..., Aggregator]) -> None:
    # One path of share 1/2 alone with the slot: that it helps is only seen against the slot's fall of 0.
    for sign in (1.0, -1.0):
        aggregator = connected(make(every=1, relative=False, learning_rate=0.5), 1)
        assert step(aggregator, [[1.0, 0.0]], [sign, 0.0]) == [0.5]
        weight = 1 / (1 + math.exp(-0.5 * sign))
        torch.testing.assert_close(step(aggregator, [[1.0, 0.0]], [0.0, 0.0]), [weight])


def golden_size_of_a_slope(make: Callable[..., Aggregator]) -> None:
    # One path: slopes -p (1 - p) * fall.  First p = 1/2, fall 8: -2, theta = 0.1.  Then p = 1/(1 + e^-0.1), fall -4.
    # Adam with betas (0.5, 0.999): moments (0.25 * -2 + 0.5 * s) / 0.75 and (0.000999 * 4 + 0.001 * s^2) / 0.001999.
    aggregator = connected(make(every=1, relative=False), 1)
    step(aggregator, [[2.0, 0.0]], [4.0, 0.0])
    torch.testing.assert_close(logits_of(aggregator).item(), 0.1)
    share = 1 / (1 + math.exp(-0.1))
    slope = 4 * share * (1 - share)
    step(aggregator, [[2.0, 0.0]], [-2.0, 0.0])
    moved = 0.1 * ((-0.5 + 0.5 * slope) / 0.75) / math.sqrt((0.003996 + 0.001 * slope**2) / 0.001999)
    torch.testing.assert_close(logits_of(aggregator).item(), 0.1 - moved)


def golden_relative(make: Callable[..., Aggregator]) -> None:
    # Pulls in units of first losses: gradients (1, 30) over (1, 100), held out (1, 0): 1 against 0.3, mean 0.43: the
    # first gains, though the second is the longer.
    aggregator = connected(make(every=1, learning_rate=0.25), 2)
    step(aggregator, [[1.0, 0.0], [30.0, 0.0]], [1.0, 0.0], 1.0, 100.0)
    torch.testing.assert_close(logits_of(aggregator).tolist(), [0.25, -0.25])


def golden_every(make: Callable[..., Aggregator]) -> None:
    # Looks at the first step and at every third from there.
    aggregator = connected(make(every=3, relative=False, learning_rate=0.25), 1)
    found = []
    for _ in range(4):
        step(aggregator, [[1.0, 0.0]], [1.0, 0.0])
        found.append(logits_of(aggregator).item())
    torch.testing.assert_close(found[:3], [0.25, 0.25, 0.25])
    assert found[3] > 0.45


def golden_bound(make: Callable[..., Aggregator]) -> None:
    aggregator = connected(make(every=1, relative=False, learning_rate=5.0), 2)
    for _ in range(2):
        step(aggregator, [[1.0, 0.0], [-1.0, 0.0]], [1.0, 0.0])
    assert logits_of(aggregator).tolist() == [7.0, -7.0]


def golden_mean_over_ranks(make: Callable[..., Aggregator]) -> None:
    # The means over the ranks are (4, 2); in evaluation, which looks at no gradients.
    aggregator = connected(make(), 2).eval()
    losses, _ = losses_with_rows(torch.zeros(3, 2, dtype=torch.float64))
    with mock.patch("distill.distributed.mean", return_value=torch.tensor([4.0, 2.0, 1.0], dtype=torch.float64)):
        torch.testing.assert_close(aggregator(losses).weights.tolist(), [2 / 3 / 4, 2 / 3 / 2])


GOLDENS = {
    "DistPro": (
        golden_shares,
        golden_slopes,
        golden_waiting,
        golden_slot,
        golden_size_of_a_slope,
        golden_relative,
        golden_every,
        golden_bound,
        golden_mean_over_ranks,
    )
}


def test_accumulated_batches_are_one_step() -> None:
    # Rows (1, 0) and (-3, 0), of whose sum the held-out loss sees a rise.
    aggregator = connected(DistPro(every=1, relative=False), 1)
    aggregator.advance(0.0)
    for row in ([1.0, 0.0], [-3.0, 0.0]):
        aggregator(losses_with_rows(torch.tensor([TASK, row], dtype=torch.float64))[0])
    aggregator.after_step(None, {"all": torch.tensor([1.0, 0.0], dtype=torch.float64)})
    torch.testing.assert_close(logits_of(aggregator).item(), -0.1)


def test_a_path_that_waits_for_its_time_is_not_starved() -> None:
    aggregator = connected(DistPro(every=1, relative=False), 2)
    for _ in range(70):
        weights = step(aggregator, [[1.0, 0.0], [0.0, 0.0]], [1.0, 0.0])
    assert logits_of(aggregator)[0] > 3
    assert sum(weights) + weights[1] == pytest.approx(2)  # no more and no less than no distillation
    for _ in range(40):
        weights = step(aggregator, [[1.0, 0.0], [1.0, 0.0]], [1.0, 0.0])
    assert weights[1] > 0.5


@pytest.mark.parametrize("wrong", [math.nan, math.inf])
@pytest.mark.parametrize("where", ["row", "held out"])
def test_what_is_not_finite_changes_nothing(wrong: float, where: str) -> None:
    aggregator = connected(DistPro(every=1, relative=False), 2)
    step(aggregator, [[1.0, 0.0], [0.0, 1.0]], [1.0, 0.5])
    before = {name: value.clone() for name, value in aggregator.named_buffers()}
    row = [wrong, 0.0] if where == "row" else [1.0, 0.0]
    step(aggregator, [row, [0.0, 1.0]], [wrong, 1.0] if where == "held out" else [1.0, 1.0])
    for name, value in aggregator.named_buffers():
        assert torch.equal(value, before[name]), name


@pytest.mark.parametrize("values", [(0.0, 1.0), (0.0, 0.0), (1e-10, 1e10), (5.0, -5.0)])
@pytest.mark.parametrize("length", [0.0, 1e-12, 1.0, 1e12])
def test_weights_are_bounded_whatever_the_losses_do(values: tuple[float, float], length: float) -> None:
    aggregator = connected(DistPro(alpha_distill=0.5, every=1, learning_rate=2.0), 2)
    for number in range(40):
        rows = [[length, 0.0], [0.0, -length]]
        weights = step(aggregator, rows, [1.0, 1.0], *(values if number % 2 else values[::-1]))
        assert all(math.isfinite(weight) and weight >= 0 for weight in weights)
        first = aggregator.first._mean[:-1].clamp_min(1e-8)  # type: ignore[union-attr, operator, index]
        assert (torch.tensor(weights) * first <= 0.5 * 2 * (1 + 1e-6)).all()
    assert logits_of(aggregator).abs().max() <= LARGEST_LOGIT


def test_gradients_are_asked_for_where_they_are_due_alone() -> None:
    aggregator = connected(DistPro(every=3), 2)
    looked = []
    for _ in range(7):
        aggregator.advance(0.0)
        losses, _ = losses_with_rows(torch.eye(3, dtype=torch.float64))
        wanted = aggregator.wants_held_out
        aggregator(losses)
        looked.append((wanted, losses.gradients["all"]._rows is not None))  # type: ignore[attr-defined]
        aggregator.after_step(None, {"all": torch.ones(3, dtype=torch.float64)} if wanted else None)
    assert looked == [(due, due) for due in (True, False, False, True, False, False, True)]


def test_evaluation_and_a_trial_before_the_training_leave_nothing_behind() -> None:
    plain, tried = (connected(DistPro(every=1, relative=False), 1) for _ in range(2))
    wild, _ = losses_with_rows(torch.tensor([TASK, [-50.0, 0.0]], dtype=torch.float64))
    tried(wild)  # a trial: no step follows
    tried.load_state_dict(plain.state_dict())
    for aggregator in (plain, tried):
        aggregator.advance(0.0)
        aggregator(losses_with_rows(torch.tensor([TASK, [1.0, 0.0]], dtype=torch.float64))[0])
        aggregator.eval()(wild)
        aggregator.train()
        aggregator.after_step(None, {"all": torch.tensor([1.0, 0.0], dtype=torch.float64)})
        torch.testing.assert_close(logits_of(aggregator).item(), 0.1)


@pytest.mark.parametrize("scope", ["last", "all"])
def test_needs_gradients_and_held_out_samples(scope: Any) -> None:
    wanted = Needs(gradients=frozenset({scope}), held_out=0.25, held_out_gradients=frozenset({scope}))
    assert DistPro(scope=scope, held_out=0.25).needs == wanted


def test_without_held_out_gradients_a_step_that_is_due_says_what_to_do() -> None:
    aggregator = connected(DistPro(every=2), 1)
    with pytest.raises(ValueError, match=r"give after_step held_out=distiller\.held_out_gradients\(batch\)"):
        step(aggregator, [[1.0, 0.0]], None)
    step(aggregator, [[1.0, 0.0]], [1.0, 0.0])
    step(aggregator, [[1.0, 0.0]], None)  # not due


def test_a_student_alone_wants_nothing() -> None:
    aggregator = connected(DistPro(), 0)
    task = torch.tensor(2.5, requires_grad=True)
    aggregate = aggregator(Losses(task, torch.zeros(0), (), 0.0))
    assert not aggregator.wants_held_out
    aggregator.after_step()
    assert aggregate.total.item() == 2.5
    assert aggregate.weights.shape == (0,)


def test_all_state_is_saved_and_none_of_it_trained() -> None:
    aggregator = connected(DistPro(), 2)
    wanted = {
        "_logits",
        "period._extra_state",
        "first._mean",
        "first._seen",
        "adam._mean",
        "adam._square",
        "adam._steps",
    }
    assert set(aggregator.state_dict()) == wanted
    assert not list(aggregator.parameters())


@pytest.mark.parametrize(
    ("options", "rule"),
    [
        ({"alpha_distill": -1}, "alpha_distill must be a finite number of at least 0, found -1"),
        ({"held_out": 0.0}, "held_out must be a finite number above 0 and below 1, found 0.0"),
        ({"held_out": 1.0}, "held_out must be a finite number above 0 and below 1, found 1.0"),
        ({"scope": "taps"}, "scope must be 'last' or 'all', found 'taps'"),
        ({"every": 0}, "every must be a whole number of at least 1, found 0"),
        ({"learning_rate": 0}, "learning_rate must be a finite number above 0, found 0"),
        ({"over": 0}, "over must be a whole number of at least 1, found 0"),
    ],
)
def test_options_are_checked_at_construction(options: dict[str, Any], rule: str) -> None:
    with pytest.raises(ValueError, match=rule):
        DistPro(**options)


MUTANTS = {
    "DistPro": [
        ("slopes = -shares", "slopes = shares"),
        ("slopes = -shares", "slopes = -1"),
        ("(falls - mean)", "falls"),
        ("(falls - mean)", "(falls - falls.mean())"),
        (" / (1 - (shares * ~pulling).sum())", ""),
        ("counts=pulling & slopes", "counts=slopes"),
        ("dim=0)[:-1]", "dim=0)[1:]"),
        ("self._logits.new_zeros(1)", "self._logits.new_ones(1)"),
        (".rows()[1:]", ".rows()[:-1]"),
        ("factors[:, None] * losses", "losses"),
        ("total = self.alpha_distill * len(losses.paths)", "total = self.alpha_distill"),
        ("total = self.alpha_distill * len(losses.paths)", "total = len(losses.paths)"),
        ("total / self.first(means)", "total * self.first(means)"),
        ("distributed.mean(torch.cat([losses.paths, losses.task.reshape(1)]))", "losses.paths.new_ones(3)"),
        ("self._steps % self.every == 0", "True", "distill.aggregators.period"),
        ("self.period.is_due", "True"),
        ("(0.5, 0.999)", "(0.9, 0.999)"),
        ("(0.5, 0.999)", "(0.5, 0.99)"),
        ("LARGEST_LOGIT = 7.0", "LARGEST_LOGIT = 70.0"),
        ("learning_rate: float = 0.1", "learning_rate: float = 0.2"),
    ],
}  # fmt: skip
"""Changes of the source that a golden value notices; see test_mutants."""
