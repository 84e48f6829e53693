from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from aggregator_cases import connected, hard_rows, losses_of, losses_with_rows
from torch import Tensor

from distill.aggregators import Aggregator, GradientDirection
from distill.aggregators.modifiers import Bound
from distill.aggregators.multi_objective import DIRECTIONS
from distill.counter_random import derive_seed

OPTIONS: dict[str, dict[str, Any]] = {"TrimmedMean": {"trim_number": 1}}
PERPENDICULAR = torch.tensor([[1.0, 0.0], [0.0, 2.0]], dtype=torch.float64)

every_method = pytest.mark.parametrize("method", DIRECTIONS)


def make(method: str, num_paths: int = 2, **options: Any) -> Aggregator:
    return connected(GradientDirection(method, OPTIONS.get(method), **options), num_paths)


def random_rows(seed: int, num_rows: int = 3) -> Tensor:
    return torch.randn(num_rows, 7, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def update(aggregator: Aggregator, rows: Tensor, *values: float) -> tuple[Tensor, Tensor, Tensor]:
    """Return the total, the gradient that the shared numbers get, and what is reported as weights."""
    losses, shared = losses_with_rows(rows, *values)
    aggregator.advance(0.0)
    aggregate = aggregator.combine(losses)
    aggregate.total.backward()
    return aggregate.total.detach(), shared.grad, aggregate.weights


def expect(found: Tensor, *wanted: float) -> None:
    torch.testing.assert_close(found.flatten(), torch.tensor(wanted, dtype=found.dtype), rtol=1e-9, atol=1e-9)


def golden_trimmed_mean(make: Callable[..., Aggregator]) -> None:
    # Of (0, -5, 4), (3, 1, 4) and (9, 0, 4) the middle of each column: (3, 0, 4). Total: losses 1, 2 and 4.
    rows = torch.tensor([[0.0, -5, 4], [3, 1, 4], [9, 0, 4]], dtype=torch.float64)
    total, gradient, _ = update(connected(make("TrimmedMean", {"trim_number": 1}), 2), rows, 2.0, 4.0)
    expect(total, 7.0)
    expect(gradient, 3.0, 0.0, 4.0)


def golden_config(make: Callable[..., Aggregator]) -> None:
    # ConFIG of (1, 0) and (0, 2): along (1, 1) / sqrt 2, as long as the projections 1 / sqrt 2 and 2 / sqrt 2 together:
    # (3/2, 3/2), which is 3/2 of the task's gradient and 3/4 of the path's.
    _, gradient, weights = update(connected(make("ConFIG"), 1), PERPENDICULAR)
    expect(gradient, 1.5, 1.5)
    expect(weights, 0.75)


def golden_normalized_rows(make: Callable[..., Aggregator]) -> None:
    # (2, 0), (0, 4) as long as the task's: (2, 0), (0, 2), of which ConFIG makes (2, 2): half of the path's gradient.
    _, gradient, weights = update(connected(make("ConFIG", normalize_rows=True), 1), 2 * PERPENDICULAR)
    expect(gradient, 2.0, 2.0)
    expect(weights, 0.5)


def golden_coefficients(make: Callable[..., Aggregator]) -> None:
    # The mean of (3, 0) and (3, 3), nothing trimmed, is half of both; with a third of zero, two thirds of that mean.
    rows = torch.tensor([[3.0, 0.0], [3.0, 3.0], [0.0, 0.0]], dtype=torch.float64)
    aggregator = make("TrimmedMean", {"trim_number": 0})
    expect(update(connected(aggregator, 1), rows[:2])[2], 0.5)
    expect(update(connected(aggregator, 2), rows)[2], 1 / 3, 0.0)


def golden_plain_sum_outside_training(make: Callable[..., Aggregator]) -> None:
    total, gradient, weights = update(connected(make("ConFIG"), 1).eval(), PERPENDICULAR, 4.0)
    expect(total, 5.0)
    expect(gradient, 1.0, 2.0)
    expect(weights, 1.0)


def golden_nothing_to_look_at(make: Callable[..., Aggregator]) -> None:
    # Zero gradients lead nowhere, though ConFIG would divide by their lengths; one that is not finite fails the total,
    # even where it is trimmed.
    total, gradient, weights = update(connected(make("ConFIG"), 1), 0 * PERPENDICULAR)
    expect(total, 2.0)
    expect(gradient, 0.0, 0.0)
    expect(weights, 0.0)
    rows = torch.tensor([[1.0], [2.0], [math.inf]], dtype=torch.float64)
    total, _, weights = update(connected(make("TrimmedMean", {"trim_number": 1}), 2), rows)
    assert bool(total.isnan())
    assert bool(weights.isnan().all())


GOLDENS = {
    "GradientDirection": (
        golden_trimmed_mean,
        golden_config,
        golden_normalized_rows,
        golden_coefficients,
        golden_plain_sum_outside_training,
        golden_nothing_to_look_at,
    )
}


@every_method
@pytest.mark.parametrize("num_paths", [2, 5])
def test_goes_where_torchjd_goes(method: str, num_paths: int) -> None:
    aggregator = make(method, num_paths)
    torchjd = pytest.importorskip("torchjd.aggregation")
    theirs = getattr(torchjd, method)(**OPTIONS.get(method, {}))
    for seed in range(4):
        rows = random_rows(seed, 1 + num_paths)
        total, gradient, _ = update(aggregator, rows)
        with torch.random.fork_rng():
            torch.manual_seed(derive_seed(0, method, seed))
            wanted = theirs(rows)
        torch.testing.assert_close(gradient, wanted)
        assert total.item() == pytest.approx(1 + num_paths)


@every_method
@pytest.mark.parametrize("name", hard_rows(torch.ones(3, 7)))
def test_goes_with_hard_gradients_where_torchjd_goes(method: str, name: str) -> None:
    torchjd = pytest.importorskip("torchjd.aggregation")
    rows = hard_rows(random_rows(0))[name]
    _, gradient, _ = update(make(method), rows)
    with torch.random.fork_rng():
        torch.manual_seed(derive_seed(0, method, 0))
        wanted = getattr(torchjd, method)(**OPTIONS.get(method, {}))(rows)
    if bool(wanted.isfinite().all()):
        torch.testing.assert_close(gradient, wanted, rtol=1e-9, atol=1e-9 * rows.norm().item())
    else:
        assert name == "all zero"


def test_the_order_of_the_paths_does_not_count() -> None:
    rows, order = random_rows(0, 4), [0, 3, 1, 2]
    for method in ("ConFIG", "TrimmedMean"):
        plain, permuted = (update(make(method, 3), each)[1] for each in (rows, rows[order]))
        torch.testing.assert_close(permuted, plain)


def test_config_goes_the_same_way_whatever_stands_in_front_of_a_path_and_raises_no_loss() -> None:
    rows = random_rows(0)
    scaled = rows * torch.tensor([[1.0], [1.0], [1e3]])
    plain, other = (update(make("ConFIG"), each)[1] for each in (rows, scaled))
    torch.testing.assert_close(plain / plain.norm(), other / other.norm())
    for seed in range(5):
        rows = random_rows(seed)
        rows[1] -= 2 * rows[0]
        assert bool((rows @ update(make("ConFIG"), rows)[1] > 0).all())


@every_method
def test_what_is_reported_is_no_rounding_where_gradients_depend_on_each_other(method: str) -> None:
    rows = random_rows(0).float()
    rows[2] = (rows[0] + rows[1]) / 3
    assert bool((update(make(method), rows)[2].abs() < 10).all())


def test_outside_the_scope_the_plain_sum_counts() -> None:
    # An adapter of the path's own, with slope 3.
    losses, shared = losses_with_rows(PERPENDICULAR)
    adapter = torch.ones((), dtype=torch.float64, requires_grad=True)
    losses = replace(losses, paths=losses.paths + 3 * adapter)
    aggregator = make("ConFIG", 1)
    aggregator.advance(0.0)
    aggregator.combine(losses).total.backward()
    expect(adapter.grad, 3.0)
    expect(shared.grad, 1.5, 1.5)


@every_method
@pytest.mark.parametrize("normalize_rows", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_all_stays_finite(method: str, normalize_rows: bool, dtype: torch.dtype) -> None:
    for name, rows in hard_rows(random_rows(0)).items():
        for values in update(make(method, normalize_rows=normalize_rows), rows.to(dtype)):
            assert bool(torch.isfinite(values).all()), name


@every_method
@pytest.mark.parametrize("poison", [math.nan, math.inf])
@pytest.mark.parametrize("normalize_rows", [False, True])
def test_what_is_not_finite_fails_the_total_and_the_next_step_is_as_ever(
    method: str, poison: float, normalize_rows: bool
) -> None:
    aggregator, other = (make(method, normalize_rows=normalize_rows) for _ in range(2))
    rows = random_rows(1)
    rows[1, 2] = poison
    assert not torch.isfinite(update(aggregator, rows)[0])
    update(other, random_rows(1))
    for found, wanted in zip(update(aggregator, random_rows(2)), update(other, random_rows(2)), strict=True):
        assert torch.equal(found, wanted)


@every_method
def test_without_paths_the_task_is_all(method: str) -> None:
    aggregator = make(method, 0)
    losses = losses_of()
    aggregator.advance(0.0)
    aggregate = aggregator.combine(losses)
    aggregate.total.backward()
    assert aggregate.total.item() == losses.task.grad.item() == 1.0
    assert aggregate.weights.shape == (0,)


def test_random_numbers_come_from_seed_and_step_and_leave_torchs_alone() -> None:
    rows = random_rows(0, 4)
    torch.manual_seed(1)
    wanted_next = torch.rand(3)
    torch.manual_seed(1)
    first, again, other = (update(make("GradDrop", 3, seed=seed), rows)[1] for seed in (5, 5, 6))
    assert torch.equal(torch.rand(3), wanted_next)
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    aggregator = make("GradDrop", 3)
    assert not torch.equal(update(aggregator, rows)[1], update(aggregator, rows)[1])


def test_grad_drop_keeps_one_sign_a_parameter() -> None:
    rows = random_rows(0, 6)
    _, gradient, _ = update(make("GradDrop", 5), rows)
    above, below = rows.clamp(min=0).sum(0), rows.clamp(max=0).sum(0)
    assert bool(((gradient - above).abs() < 1e-12).logical_or((gradient - below).abs() < 1e-12).all())


@pytest.mark.parametrize(
    ("options", "rule"),
    [
        ({"method": "MGDA"}, "method must be one of ConFIG, GradDrop, TrimmedMean, .*MGDA belongs to GradientBalance"),
        ({"method": "GradDorp"}, "Did you mean 'GradDrop'"),
        ({"method": "TrimmedMean"}, r"options\.trim_number must be given"),
        ({"method": "TrimmedMean", "options": {"trim_number": -1}}, "trim_number must be non-negative"),
        ({"method": "GradDrop", "options": {"f": torch.sigmoid}}, r"options\.f must be a finite number, a list"),
        ({"method": "ConFIG", "scope": "first"}, "scope must be 'last' or 'all', found 'first'"),
        ({"method": "ConFIG", "modifiers": [Bound(1.0)]}, "modifiers change weights, and GradientDirection has none"),
    ],
)
def test_options_are_checked_at_construction(options: dict[str, Any], rule: str) -> None:
    with pytest.raises(ValueError, match=rule):
        GradientDirection(**options)


@pytest.mark.parametrize(
    ("options", "rule"),
    [
        (
            {"method": "TrimmedMean", "options": {"trim_number": 2}},
            r"trim_number: TrimmedMean needs at least 5 gradients",
        ),
        ({"method": "GradDrop", "options": {"leak": [0.5]}}, r"options\.leak must be a list of 3, .* found 1"),
        ({"method": "ConFIG", "options": {"pref_vector": [1, 1]}}, r"options\.pref_vector must be a list of 3"),
    ],
)
def test_options_that_do_not_fit_the_paths_are_refused_when_these_are_known(options: Any, rule: str) -> None:
    aggregator = GradientDirection(**options)
    with pytest.raises(ValueError, match=rule):
        connected(aggregator, 2)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_vectors_come_along_to_where_the_gradients_are(dtype: torch.dtype) -> None:
    # A leak of 1 lets all through.
    rows = random_rows(0).to(dtype)
    aggregator = connected(GradientDirection("GradDrop", {"leak": [1.0, 1.0, 1.0]}), 2)
    torch.testing.assert_close(update(aggregator, rows)[1], rows.sum(0))


MUTANTS = {
    "GradientDirection": [
        ("losses.task + losses.paths.sum()", "losses.task + losses.paths.mean()"),
        ("total + gradients.bend(direction)", "total - gradients.bend(direction)"),
        ("total + gradients.bend(direction)", "total"),
        ("if not self.training or not self.keys:", "if not self.keys:"),
        ("weights[1:]", "weights[:-1]"),
        ("if self.normalize_rows else rows", "if False else rows"),
        ("return scales * solution", "return solution"),
        ("hermitian=True) @ (scales * inner)", "hermitian=True) @ inner"),
        ("lengths[0] / lengths", "lengths / lengths[0]", "distill.aggregators.gradient_method"),
    ],
}
"""Changes of the source that a golden value notices; see test_mutants."""
