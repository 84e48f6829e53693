from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from aggregator_cases import connected
from torch import Tensor

from distill.aggregators import Aggregator, GradNorm, Losses
from distill.aggregators.gradients import SharedGradients
from distill.aggregators.needs import Needs


def losses_with(
    values: Sequence[float], lengths: Sequence[float], *, task: float = 1.0, task_length: float = 1.0
) -> Losses:
    """Return losses whose gradients in the shared numbers have these lengths, each in a direction of its own."""
    levels = torch.tensor([task, *values], dtype=torch.float64)
    shared = torch.zeros(len(levels), dtype=torch.float64, requires_grad=True)
    all_losses = levels + torch.tensor([task_length, *lengths], dtype=torch.float64) * shared
    gradients = SharedGradients(all_losses[0], all_losses[1:], [shared])
    return Losses(all_losses[0], all_losses[1:], ("a",) * len(values), 0.0, {"last": gradients, "all": gradients})


def step(aggregator: Aggregator, *arguments: Any, **options: Any) -> list[float]:
    """Make one step; return the weights that counted in it."""
    aggregator.advance(0.0)
    found: list[float] = aggregator(losses_with(*arguments, **options)).weights.tolist()
    return found


def golden_lengths(make: Callable[..., Aggregator]) -> None:
    # Lengths (1, 4), rates 1 at first: the target is 2.5 for both, slopes (-1, 4), Adam's first step 0.1 against them.
    aggregator = connected(make(alpha_distill=0.5, learning_rate=0.1, every=1), 2)
    assert step(aggregator, (3.0, 7.0), (1.0, 4.0)) == [0.5, 0.5]
    # Now w = (1.1, 0.9) with lengths (1, 1.1) pulls (1.1, 0.99): slopes (1, -1.1).  Adam's second step, of both slopes:
    # (0.09 * -1 + 0.1 * 1) / 0.19 = 1/19 over 1, and (0.09 * 4 - 0.1 * 1.1) / 0.19 over the root of the second moment.
    torch.testing.assert_close(step(aggregator, (3.0, 7.0), (1.0, 1.1)), [0.55, 0.45])
    first = 1.1 - 0.1 / 19
    second = 0.9 - 0.1 * (0.25 / 0.19) / math.sqrt((0.000999 * 16 + 0.001 * 1.21) / 0.001999)
    wanted = [first / (first + second), second / (first + second)]
    torch.testing.assert_close(step(aggregator, (3.0, 7.0), (1.0, 1.0)), wanted)


def golden_rates(make: Callable[..., Aggregator]) -> None:
    # Equal lengths: nothing to do at first.  Then losses (4, 2) -> (4, 1): r = (1, 1/2) / (3/4) = (4/3, 2/3), and
    # alpha = 2 makes targets of 16/9 and 4/9: slopes (-1, 1).
    # Adam's second step: (0.1 / 0.19) / sqrt(0.001 / 0.001999).
    aggregator = connected(make(alpha=2.0, learning_rate=0.1, every=2), 2)
    step(aggregator, (4.0, 2.0), (1.0, 1.0))
    step(aggregator, (4.0, 1.0), (9.0, 1.0))  # between two looks
    assert step(aggregator, (4.0, 1.0), (1.0, 1.0)) == [1.0, 1.0]
    moved = 0.1 * (0.1 / 0.19) / math.sqrt(0.001 / 0.001999)
    torch.testing.assert_close(step(aggregator, (4.0, 1.0), (1.0, 1.0)), [1 + moved, 1 - moved])


def golden_power(make: Callable[..., Aggregator]) -> None:
    # Losses (4, 2) -> (4, 1) again, lengths (1.5, 1), mean 1.25: alpha = 1 asks for 1.25 (4/3, 2/3) = (1.67, 0.83), so
    # slopes are (-1.5, 1); alpha = 0 asks for 1.25 of both: (1.5, -1).
    for alpha, sign in ((1.0, 1), (0.0, -1)):
        aggregator = connected(make(alpha=alpha, learning_rate=0.1, every=1), 2)
        step(aggregator, (4.0, 2.0), (1.0, 1.0))
        step(aggregator, (4.0, 1.0), (1.5, 1.0))
        weights = step(aggregator, (4.0, 1.0), (1.0, 1.0))
        assert sign * (weights[0] - weights[1]) > 0.1


def golden_sum(make: Callable[..., Aggregator]) -> None:
    # Lengths (1, 1, 10), mean 4: slopes (-1, -1, 10): w = (1.5, 1.5, 0.5), scaled from 3.5 to 3.
    aggregator = connected(make(learning_rate=0.5, every=1), 3)
    step(aggregator, (1.0, 1.0, 1.0), (1.0, 1.0, 10.0))
    wanted = [1.5 * 3 / 3.5, 1.5 * 3 / 3.5, 0.5 * 3 / 3.5]
    torch.testing.assert_close(step(aggregator, (1.0, 1.0, 1.0), (1.0, 1.0, 1.0)), wanted)


def golden_task(make: Callable[..., Aggregator]) -> None:
    # Task of length 5, path of length 1: w = (0.9, 1.1); alpha_distill = 2 multiplies the path's alone.
    aggregator = connected(make(alpha_distill=2.0, learning_rate=0.1, every=1, include_task=True), 1)
    step(aggregator, (3.0,), (1.0,), task_length=5.0)
    aggregator.advance(0.0)
    losses = losses_with((3.0,), (1.0,))
    aggregate = aggregator(losses)
    task, paths = torch.autograd.grad(aggregate.total, [losses.task, losses.paths], allow_unused=True)
    torch.testing.assert_close(task.item(), 0.9)
    torch.testing.assert_close(paths.tolist(), [2.2])
    torch.testing.assert_close(aggregate.weights.tolist(), [2.2])


def golden_floor(make: Callable[..., Aggregator]) -> None:
    # A step of 3 would send w to (4, -2): held at 0.001 before the sum is made 2.
    aggregator = connected(make(learning_rate=3.0, every=1), 2)
    step(aggregator, (1.0, 1.0), (1.0, 4.0))
    torch.testing.assert_close(step(aggregator, (1.0, 1.0), (1.0, 1.0)), [8 / 4.001, 0.002 / 4.001])


GOLDENS = {"GradNorm": (golden_lengths, golden_rates, golden_power, golden_sum, golden_task, golden_floor)}


def test_equals_the_papers_algorithm_by_automatic_differentiation() -> None:
    aggregator = connected(GradNorm(alpha=0.7, every=1, learning_rate=0.05, include_task=True), 3)
    weights = torch.ones(4, dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.Adam([weights], lr=0.05)
    generator = torch.Generator().manual_seed(0)
    first: Tensor | None = None
    for _ in range(40):
        values, lengths = (0.1 + torch.rand(4, generator=generator, dtype=torch.float64) for _ in range(2))
        first = values if first is None else first
        found = step(
            aggregator, values[1:].tolist(), lengths[1:].tolist(), task=values[0].item(), task_length=lengths[0].item()
        )
        torch.testing.assert_close(found, weights[1:].tolist(), rtol=1e-6, atol=0)
        pulls = weights * lengths
        left = values / first
        target = (pulls.mean() * (left / left.mean()) ** 0.7).detach()
        optimizer.zero_grad()
        (pulls - target).abs().sum().backward()
        optimizer.step()
        with torch.no_grad():
            weights.mul_(4 / weights.sum())


@pytest.mark.parametrize("scale", [1e-10, 1.0, 1e10])
def test_evens_out_the_pulls_whatever_their_scale(scale: float) -> None:
    aggregator = connected(GradNorm(alpha=0, every=1), 3)
    lengths = (0.5 * scale, scale, 2 * scale)
    for _ in range(300):
        weights = step(aggregator, (1.0, 1.0, 1.0), lengths)
    pulls = [weight * length / scale for weight, length in zip(weights, lengths, strict=True)]
    assert max(pulls) < 1.2 * min(pulls)


@pytest.mark.parametrize("values", [(0.0, 1.0), (0.0, 0.0), (1e-10, 1e10), (5.0, 5.0)])
@pytest.mark.parametrize("lengths", [(0.0, 1.0), (0.0, 0.0), (1e-10, 1e10), (1.0, 1.0)])
def test_weights_are_bounded_whatever_the_losses_do(values: tuple[float, float], lengths: tuple[float, float]) -> None:
    aggregator = connected(GradNorm(alpha_distill=0.5, every=1, learning_rate=0.5), 2)
    for number in range(60):
        weights = step(aggregator, values if number % 2 else values[::-1], lengths)
        assert sum(weights) == pytest.approx(1.0)
        assert min(weights) > 0
    if values[0] == values[1] and lengths[0] == lengths[1]:
        assert weights == [0.5, 0.5]


def test_one_path_has_weight_alpha() -> None:
    aggregator = connected(GradNorm(alpha_distill=0.3, every=1), 1)
    for value in (1.0, 2.0, 0.0):
        assert step(aggregator, (value,), (value,)) == pytest.approx([0.3])


def test_the_first_loss_above_zero_is_the_one_to_compare_with() -> None:
    aggregator = connected(GradNorm(every=1), 2)
    for value in (0.0, 8.0, 4.0):
        step(aggregator, (3.0, value), (1.0, 1.0))
    assert dict(aggregator.named_buffers())["_first"].tolist() == [3.0, 8.0]


@pytest.mark.parametrize("wrong", [math.nan, math.inf])
@pytest.mark.parametrize("what", ["loss", "length"])
@pytest.mark.parametrize("when", [0, 2])
def test_what_is_not_finite_is_not_remembered(wrong: float, what: str, when: int) -> None:
    aggregator = connected(GradNorm(every=1), 2)
    found = []
    for number in range(6):
        given = (wrong if number == when else 4.0, 2.0)
        found.append(
            step(aggregator, given if what == "loss" else (4.0, 2.0), given if what == "length" else (4.0, 2.0))
        )
    assert found[when + 1] == pytest.approx(found[when])
    assert found[when + 2] != pytest.approx(found[when])
    assert dict(aggregator.named_buffers())["_first"].tolist() == [4.0, 2.0]
    for name, value in aggregator.named_buffers():
        assert value.isfinite().all(), name
    weights = step(aggregator, (4.0, 2.0), (1.0, 1.0))
    assert weights[0] < 1 < weights[1]
    assert sum(weights) == pytest.approx(2.0)


def test_gradients_are_asked_for_at_looks_alone() -> None:
    aggregator = connected(GradNorm(every=3), 2)
    looked = []
    for _ in range(7):
        aggregator.advance(0.0)
        losses = losses_with((1.0, 1.0), (1.0, 2.0))
        aggregator(losses)
        looked.append(losses.gradients["last"]._rows is not None)  # type: ignore[attr-defined]
    assert looked == [True, False, False, True, False, False, True]


@pytest.mark.parametrize("scope", ["last", "all"])
def test_needs_gradients_in_its_scope(scope: Any) -> None:
    assert GradNorm(scope=scope).needs == Needs(gradients=frozenset({scope}))


@pytest.mark.parametrize(
    ("options", "rule"),
    [
        ({"alpha_distill": -1}, "alpha_distill must be a finite number of at least 0, found -1"),
        ({"alpha": -1}, "alpha must be a finite number of at least 0, found -1"),
        ({"scope": "taps"}, "scope must be 'last' or 'all', found 'taps'"),
        ({"every": 0}, "every must be a whole number of at least 1, found 0"),
        ({"learning_rate": 0}, "learning_rate must be a finite number above 0, found 0"),
    ],
)
def test_options_are_checked_at_construction(options: dict[str, Any], rule: str) -> None:
    with pytest.raises(ValueError, match=rule):
        GradNorm(**options)


MUTANTS = {
    "GradNorm": [
        ("self._rates(mean) ** self.alpha", "self._rates(mean)"),
        ("* self._rates(mean) ** self.alpha", ""),
        ("(pulls - target).sign()", "(target - pulls).sign()"),
        ("self._weights * lengths", "lengths / self._weights"),
        ("(len(weights) / weights.sum())", "1.0"),
        ("clamp_min(SMALLEST_SHARE)", "clamp_min(-9.0)"),
        ("self._steps % self.every == 0", "True", "distill.aggregators.period"),
        ("self.period.is_due", "True"),
        (".lengths()", ".lengths().square()"),
        (".lengths()", ".lengths().mul(0)"),
        ("[0 if self.weighs_task else 1 :]", "[0 if self.weighs_task else 0 :][: len(self._weights)]"),
        ("torch.where(known, self._first, mean)", "mean"),
        ("alpha_distill=self.alpha_distill)", "alpha_distill=1.0)"),
        ("values * chosen).sum() / chosen.sum().clamp_min(1)", "values * chosen).sum()"),
    ],
}
"""Changes of the source that a golden value notices; see test_mutants."""
