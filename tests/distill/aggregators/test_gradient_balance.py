from __future__ import annotations

import io
import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from aggregator_cases import WITHOUT_SOLVER, connected, hard_rows, losses_of, losses_with_rows
from torch import Tensor

from distill.aggregators import Aggregate, Aggregator, Equal, GradientBalance
from distill.aggregators.modifiers import Bound, Ramp
from distill.aggregators.multi_objective import WEIGHTINGS
from distill.checkpoint_content import check_content
from distill.counter_random import derive_seed

OPTIONS: dict[str, dict[str, Any]] = {
    "CAGrad": {"c": 0.4},
    "ExcessMTL": {"n_warmup_steps": 2},
    "FairGrad": {"alpha": 1.0},
    "Krum": {"n_byzantine": 0},
}
"""What methods require, or what makes them remember more."""

METHODS = [method for method in WEIGHTINGS if method not in WITHOUT_SOLVER]
every_method = pytest.mark.parametrize("method", METHODS)


def make(method: str, num_paths: int = 2, **options: Any) -> Aggregator:
    """Return the connected aggregator."""
    return connected(GradientBalance(method, OPTIONS.get(method), **options), num_paths)


def step(aggregator: Aggregator, rows: Tensor) -> Aggregate:
    aggregator.advance(0.0)
    return aggregator.combine(losses_with_rows(rows)[0])


def all_weights(aggregator: Aggregator, rows: Tensor) -> Tensor:
    """Return the weights `[1 + key]` of one step, the task's first."""
    losses, _ = losses_with_rows(rows)
    aggregator.advance(0.0)
    aggregate = aggregator.combine(losses)
    task, paths = torch.autograd.grad(aggregate.total, [losses.task, losses.paths])
    torch.testing.assert_close(paths, aggregate.weights, equal_nan=True)
    return torch.cat([task.reshape(1), paths])


def rows_of(*rows: tuple[float, ...]) -> Tensor:
    return torch.tensor(rows, dtype=torch.float64)


def random_rows(seed: int, num_rows: int = 3, num_parameters: int = 7) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(num_rows, num_parameters, generator=generator, dtype=torch.float64)


PERPENDICULAR = rows_of((1, 0), (0, 2))
OPPOSED = rows_of((1, 0), (-1, 1))


def expect(found: Tensor, *wanted: float, tolerance: float = 1e-9) -> None:
    torch.testing.assert_close(found.flatten(), torch.tensor(wanted, dtype=found.dtype), rtol=tolerance, atol=tolerance)


def golden_shortest_mean(make: Callable[..., Aggregator]) -> None:
    # MGDA of (1, 0) and (0, 2): a (1, 0) + b (0, 2) with a + b = 1 is shortest at a : b = 4 : 1, so (4/5, 1/5).
    # Losses 1 and 3: 4/5 + 3/5.
    aggregator = connected(make("MGDA"), 1)
    aggregator.advance(0.0)
    losses, shared = losses_with_rows(PERPENDICULAR, 3.0)
    aggregate = aggregator.combine(losses)
    aggregate.total.backward()
    expect(aggregate.total.detach(), 1.4)
    expect(aggregate.weights, 0.2)
    expect(shared.grad, 0.8, 0.4)


def golden_conflict(make: Callable[..., Aggregator]) -> None:
    # PCGrad of g = (1, 0), h = (-1, 1), whose product is -1: g + 1/2 h, and h + 1 g; together 2 g + 3/2 h.
    expect(all_weights(connected(make("PCGrad"), 1), OPPOSED), 2.0, 1.5)


def golden_normalized_rows(make: Callable[..., Aggregator]) -> None:
    # (2, 0), (0, 4) as long as the task's: (2, 0), (0, 2). MGDA weighs both 1/2, of which the path's is halved.
    expect(all_weights(connected(make("MGDA", normalize_rows=True), 1), 2 * PERPENDICULAR), 0.5, 0.25)
    # Under ExcessMTL, which reads rows: the first look is softmax of sum of g^2 / |g| = (2, 2) alike.
    expect(all_weights(connected(make("ExcessMTL", normalize_rows=True), 1), 2 * PERPENDICULAR), 0.5, 0.25)


def golden_every_second_step(make: Callable[..., Aggregator]) -> None:
    # Looks at the steps 0 and 2.
    aggregator = connected(make("MGDA", every=2), 1)
    steps = [all_weights(aggregator, rows) for rows in (PERPENDICULAR, PERPENDICULAR.flip(0), PERPENDICULAR.flip(0))]
    for found, wanted in zip(steps, ((0.8, 0.2), (0.8, 0.2), (0.2, 0.8)), strict=True):
        expect(found, *wanted)


def golden_bound(make: Callable[..., Aggregator]) -> None:
    # FairGrad with alpha = 1 solves (G G^T w)_i = 1 / w_i: w_i = 1 / |g_i| = 1000 and 10 for perpendicular ones.
    aggregator = connected(make("FairGrad", {"alpha": 1.0}, max_weight=50.0), 1)
    expect(all_weights(aggregator, rows_of((1e-3, 0), (0, 0.1))), 50.0, 10.0, tolerance=1e-4)


def golden_no_look_outside_training(make: Callable[..., Aggregator]) -> None:
    aggregator = connected(make("MGDA"), 1)
    expect(all_weights(aggregator.eval(), PERPENDICULAR), 1.0, 1.0)
    expect(all_weights(aggregator.train(), PERPENDICULAR), 0.8, 0.2)
    expect(all_weights(aggregator.eval(), PERPENDICULAR.flip(0)), 0.8, 0.2)


def golden_nothing_to_look_at(make: Callable[..., Aggregator]) -> None:
    # Gradients that are all zero leave the weights; one that is not finite makes them NaN, for this step alone.
    aggregator = connected(make("MGDA"), 1)
    expect(all_weights(aggregator, 0 * PERPENDICULAR), 1.0, 1.0)
    expect(all_weights(aggregator, PERPENDICULAR), 0.8, 0.2)
    assert bool(all_weights(aggregator, rows_of((1, 0), (math.inf, 1))).isnan().all())
    expect(all_weights(aggregator, 0 * PERPENDICULAR), 0.8, 0.2)
    # ExcessMTL sums up squared gradients: it must not have seen such a one.
    aggregator = connected(make("ExcessMTL"), 1)
    for rows in (PERPENDICULAR, math.inf * PERPENDICULAR, PERPENDICULAR):
        found = all_weights(aggregator, rows)
    assert bool(found.isfinite().all())


def golden_small_gradients(make: Callable[..., Aggregator]) -> None:
    # GradVac starts as PCGrad does. It adds 1e-8 to lengths: of no account only if these are not absolute.
    expect(all_weights(connected(make("GradVac"), 1), 1e-10 * OPPOSED), 2.0, 1.5, tolerance=1e-6)


GOLDENS = {
    "GradientBalance": (
        golden_shortest_mean,
        golden_conflict,
        golden_normalized_rows,
        golden_every_second_step,
        golden_bound,
        golden_no_look_outside_training,
        golden_nothing_to_look_at,
        golden_small_gradients,
    )
}


@every_method
@pytest.mark.parametrize("num_paths", [2, 5])
def test_weighs_as_torchjd_does(method: str, num_paths: int) -> None:
    aggregator = make(method, num_paths)
    torchjd = pytest.importorskip("torchjd.aggregation")
    options = {**OPTIONS.get(method, {}), **({"n_tasks": 1 + num_paths} if method == "NashMTL" else {})}
    theirs = getattr(torchjd, method)(**options)
    for seed in range(4):
        rows = random_rows(seed, 1 + num_paths)
        losses, shared = losses_with_rows(rows)
        aggregator.advance(0.0)
        aggregator.combine(losses).total.backward()
        with torch.random.fork_rng():
            torch.manual_seed(derive_seed(0, method, seed))
            wanted = theirs(rows)
        torch.testing.assert_close(shared.grad, wanted, rtol=1e-6, atol=1e-6)


OF_SIZE, OF_ROWS = ("FairGrad", "PCD"), ("ExcessMTL", "NashMTL")


@pytest.mark.parametrize(  # Krum takes no two gradients
    ("method", "num_paths"),
    [(method, num_paths) for method in METHODS for num_paths in (1, 2) if (method, num_paths) != ("Krum", 1)],
)
@pytest.mark.parametrize("name", [name for name in hard_rows(PERPENDICULAR.repeat(2, 1)[:3]) if name != "all zero"])
def test_weighs_hard_gradients_as_torchjd_does(method: str, name: str, num_paths: int) -> None:
    torchjd = pytest.importorskip("torchjd.aggregation")
    aggregator = make(method, num_paths, max_weight=1e30)
    theirs = getattr(torchjd, method)(
        **OPTIONS.get(method, {}), **({"n_tasks": 1 + num_paths} if method == "NashMTL" else {})
    )
    rows = hard_rows(random_rows(0))[name][: 1 + num_paths]
    losses, shared = losses_with_rows(rows)
    aggregator.advance(0.0)
    aggregator.combine(losses).total.backward()
    # In units of their length where we hand on such: torchjd compares with absolute numbers.
    unit = 1.0 if method in (*OF_SIZE, *OF_ROWS) else rows.norm()
    with torch.random.fork_rng():
        torch.manual_seed(derive_seed(0, method, 0))
        wanted = theirs(rows / unit) * unit
    assert bool(wanted.isfinite().all())
    # What cancels is known to within the rounding of what it was made of.
    largest = 1e-6 * rows.norm().item() if name == "opposed" else 1e-9 * wanted.abs().max().item()
    torch.testing.assert_close(shared.grad, wanted, rtol=1e-9, atol=largest)


DRAWN = ("GradVac", "PCGrad")
"""Those that take the gradients in an order which they draw.  Krum takes the first of the two that are nearest to each
other, so that for it the order counts as well."""
HARMLESS = ("DualProj", "FairGrad", "MGDA", "PCD", "UPGrad")
"""Those whose update raises no loss, where one exists.  Not NashMTL, whose problem torchjd does not always solve."""
SCALE_FREE = ("IMTLG",)
"""Those that go the same way whatever constant is in front of a loss."""


def conflicting_rows(seed: int) -> Tensor:
    """Return the gradients of a task and two paths, independent, and at odds with each other."""
    base, rows = random_rows(seed), random_rows(seed)
    rows[1] -= base[0]
    rows[2] = 0.7 * rows[2] - 0.6 * base[1] - 0.3 * base[0]
    return rows[[1, 0, 2]]


@pytest.mark.parametrize("method", [method for method in METHODS if method not in (*DRAWN, "Krum")])
def test_the_order_of_the_paths_does_not_count(method: str) -> None:
    order = [0, 2, 1]
    aggregator, other = make(method), make(method)
    for seed in range(4):  # ExcessMTL weighs all alike at first
        rows = conflicting_rows(seed)
        plain, permuted = all_weights(aggregator, rows), all_weights(other, rows[order])
        torch.testing.assert_close(permuted, plain[order], rtol=1e-4, atol=1e-4)
    assert not torch.allclose(plain, plain[order], rtol=1e-2), "the paths' weights are not alike"


def least_cosine(direction: Tensor, rows: Tensor) -> float:
    return ((rows @ direction) / (rows.norm(dim=1) * direction.norm())).min().item()


@pytest.mark.parametrize("method", HARMLESS)
def test_raises_no_loss(method: str) -> None:
    for seed in range(5):
        rows = conflicting_rows(seed)
        assert least_cosine(rows.sum(dim=0), rows) < -0.05, "the sum would raise one"
        assert least_cosine(all_weights(make(method), rows) @ rows, rows) > -5e-3  # DualProj's problem is regularised


@pytest.mark.parametrize("method", SCALE_FREE)
@pytest.mark.parametrize("factor", [1e-3, 1e3])
def test_goes_the_same_way_whatever_stands_in_front_of_a_path(method: str, factor: float) -> None:
    rows = random_rows(0)
    scaled = rows * torch.tensor([[1.0], [1.0], [factor]])
    plain, other = (all_weights(make(method), each) @ each for each in (rows, scaled))
    torch.testing.assert_close(plain / plain.norm(), other / other.norm(), rtol=1e-6, atol=1e-9)
    equal, other = (all_weights(connected(Equal(), 2), each) @ each for each in (rows, scaled))
    assert not torch.allclose(equal / equal.norm(), other / other.norm(), rtol=1e-2)


def through_a_file(state: dict[str, Any]) -> dict[str, Any]:
    check_content("state", state)
    file = io.BytesIO()
    torch.save(state, file)
    file.seek(0)
    loaded: dict[str, Any] = torch.load(file, weights_only=True)
    return loaded


@every_method
@pytest.mark.parametrize("steps_before", [0, 1, 3])
def test_saved_restored_and_continued_is_the_same_bit_for_bit(method: str, steps_before: int) -> None:
    whole = make(method)
    for seed in range(steps_before):
        step(whole, random_rows(seed))
    restored = make(method)
    step(restored, random_rows(9))  # what it remembers has to go
    restored.load_state_dict(through_a_file(whole.state_dict()))
    again = make(method)
    again.load_state_dict(through_a_file(restored.state_dict()))  # saved once more before its first step
    for seed in range(3, 8):
        wanted, *found = (step(each, random_rows(seed)).weights for each in (whole, restored, again))
        assert all(torch.equal(each, wanted) for each in found)


@every_method
def test_all_that_a_method_remembers_is_saved(method: str) -> None:
    # What a step changes in the attributes of torchjd's object, and does not follow from the shape of the gradients.
    aggregator = make(method)
    solver = aggregator._method._solver
    before = {name: _told(value) for name, value in _attributes(solver).items()}
    for seed in range(5):
        step(aggregator, random_rows(seed))
    changed = {name for name, value in _attributes(solver).items() if _told(value) != before.get(name)}
    assert changed - DERIVED == aggregator._method.state().keys()


DERIVED = {
    "_state_key", "init_gtg", "G_param", "G_alpha", "alpha_param", "prvs_alpha_param", "normalization_factor_param",
    "phi_alpha", "prob",
}  # fmt: skip
"""The shape and kind of the gradients, and NashMTL's problem, whose numbers are set anew by each step."""


def _attributes(solver: Any) -> dict[str, Any]:
    torchs = vars(torch.nn.Module())
    own = {name: value for name, value in vars(solver).items() if name not in torchs}
    return {**own, **solver._buffers}


def _told(value: Any) -> str:
    return f"{type(value).__name__} {value}"


@every_method
@pytest.mark.parametrize("normalize_rows", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_weights_stay_finite_and_bounded(method: str, normalize_rows: bool, dtype: torch.dtype) -> None:
    for name, rows in hard_rows(random_rows(0)).items():
        aggregator = make(method, normalize_rows=normalize_rows, max_weight=1e4)
        for _ in range(3):
            found = all_weights(aggregator, rows.to(dtype))
            assert bool(torch.isfinite(found).all()), name
            assert found.abs().max() <= 1e4, name


@every_method
def test_one_path_is_enough_and_none_is_the_task_alone(method: str) -> None:
    alone = make(method, 0)
    losses = losses_of()
    alone.advance(0.0)
    aggregate = alone.combine(losses)
    aggregate.total.backward()
    assert aggregate.total.item() == losses.task.grad.item() == 1.0
    assert aggregate.weights.shape == (0,)
    alone.load_state_dict(alone.state_dict())
    if method == "Krum":
        with pytest.raises(ValueError, match=r"Krum needs at least 3 gradients.*, and the task and 1 path have 2"):
            make(method, 1)
        return
    assert torch.isfinite(step(make(method, 1), random_rows(0, 2)).weights).all()


@every_method
def test_what_is_not_finite_never_reaches_the_method(method: str) -> None:
    aggregator = make(method)
    step(aggregator, random_rows(0))
    before = aggregator.state_dict()
    for poison in (math.nan, math.inf):
        rows = random_rows(1)
        rows[1, 2] = poison
        aggregate = step(aggregator, rows)
        assert not torch.isfinite(aggregate.total)
        assert bool(aggregate.weights.isnan().all())
    after = aggregator.state_dict()
    assert torch.equal(after["_weights"], before["_weights"])
    for name, value in before["_extra_state"]["method"].items():
        torch.testing.assert_close(after["_extra_state"]["method"][name], value, rtol=0, atol=0)


@pytest.mark.parametrize("method", ["GradVac", "PCGrad"])
def test_random_numbers_come_from_seed_and_step_and_leave_torchs_alone(method: str) -> None:
    rows = [random_rows(seed, 8, 5) for seed in range(4)]
    torch.manual_seed(1)
    wanted_next = torch.rand(3)
    torch.manual_seed(1)
    first = [step(make(method, 7, seed=5), rows[0]).weights for _ in range(2)]
    assert torch.equal(torch.rand(3), wanted_next)
    assert torch.equal(*first)
    assert not torch.equal(first[0], step(make(method, 7, seed=6), rows[0]).weights)
    aggregator = make("PCGrad", 7)
    assert not torch.equal(*(step(aggregator, rows[0]).weights for _ in range(2))), "another order in each step"


def test_normalized_rows_do_not_know_constants_in_front_of_a_path() -> None:
    rows = random_rows(0)
    scales = torch.tensor([[1.0], [1e-4], [1e3]], dtype=torch.float64)
    for method in ("AlignedMTL", "MGDA", "PCGrad", "FairGrad"):
        plain, scaled = (all_weights(make(method, normalize_rows=True), each) for each in (rows, rows * scales))
        torch.testing.assert_close(scaled * scales[:, 0], plain)


def test_mgda_weighs_the_shortest_gradient_most() -> None:
    # As its documentation warns.
    rows = random_rows(0, 5, 1000) * torch.tensor([[1.0], [1e3], [10.0], [1e-2], [1.0]])
    assert all_weights(make("MGDA", 4), rows)[3] > 0.99
    balanced = all_weights(make("MGDA", 4, normalize_rows=True), rows) * rows.norm(dim=1)
    assert balanced.max() < 2 * balanced.min()


def test_pcd_gives_each_path_its_share() -> None:
    aggregator = connected(GradientBalance("PCD", {"tau": 0.1}), 1)
    weights = all_weights(aggregator, OPPOSED)
    direction = weights @ OPPOSED
    # The direction is scaled to the length of the task's gradient afterwards: the share is of the sign alone.
    assert direction @ OPPOSED[1] > 0
    torch.testing.assert_close(direction.norm(), OPPOSED[0].norm())


def test_modifiers_change_the_weights_of_paths() -> None:
    plain = step(make("PCGrad", 1), OPPOSED)
    bounded = step(make("PCGrad", 1, modifiers=[Bound(1.0), Ramp(first=0.5)]), OPPOSED)
    assert plain.weights.tolist() == [1.5]
    assert bounded.weights.tolist() == [0.5]


@pytest.mark.parametrize(
    ("options", "rule"),
    [
        ({"method": "PDC"}, r"method must be one of AlignedMTL, .*found 'PDC'\. Did you mean 'PCD'"),
        ({"method": "MoDo"}, "method: torchjd's MoDo is not offered, for it needs gradients of two batches"),
        ({"method": "SDMGrad"}, "method: torchjd's SDMGrad is not offered, for it needs gradients of two"),
        ({"method": "Mean"}, "it looks at no gradient; the aggregator Equal"),
        ({"method": "ConFIG"}, "ConFIG belongs to GradientDirection"),
        ({"method": "PCD", "scope": "taps"}, "scope must be 'last' or 'all', found 'taps'"),
        ({"method": "PCD", "every": 0}, "every must be a whole number of at least 1, found 0"),
        ({"method": "PCD", "max_weight": 0}, "max_weight must be a finite number above 0, found 0"),
        ({"method": "PCD", "seed": -1}, "seed must be a whole number of at least 0, found -1"),
        ({"method": "PCD", "options": {"tua": 0.1}}, r"options\.tua: PCD takes tau, beta, eps\. Did you mean 'tau'"),
        ({"method": "PCD", "options": {"tau": 2}}, r"options\.tau: PCD does not take this: tau must be in \[0, 1\]"),
        ({"method": "PCD", "options": {"tau": "much"}}, r"options\.tau: PCD does not take this"),
        ({"method": "PCD", "options": {"tau": math.nan}}, r"options\.tau must be a finite number, a list"),
        ({"method": "PCD", "options": {"tau": [0.1, None]}}, r"options\.tau\[1\] must be a finite number, found None"),
        ({"method": "FairGrad"}, r"options\.alpha must be given: FairGrad has no default for it"),
        ({"method": "FairGrad", "options": {"alpha": -1}}, r"options\.alpha must be a finite number of at least 0"),
        (
            {"method": "Krum", "options": {"n_byzantine": -1}},
            r"options\.n_byzantine: Krum does not take this: n_byz.* must be",
        ),
        ({"method": "IMTLG", "options": {"n_tasks": 3}}, r"options\.n_tasks: IMTLG takes no options\."),
        ({"method": "UPGrad", "options": {"projector": 1}}, r"options\.projector: UPGrad takes pref_vector\."),
        ({"method": "NashMTL", "options": {"n_tasks": 3}}, r"options\.n_tasks is known from the paths"),
    ],
)
def test_options_are_checked_at_construction(options: dict[str, Any], rule: str) -> None:
    with pytest.raises(ValueError, match=rule):
        GradientBalance(**options)


@pytest.mark.parametrize(
    ("options", "rule"),
    [
        (
            {"method": "PCD", "options": {"tau": [0.1]}},
            r"options\.tau must be a list of 2, a number each for 2 paths, found 1",
        ),
        (
            {"method": "AlignedMTL", "options": {"scale_mode": "max"}},
            r"options\.scale_mode: AlignedMTL does not take this: Invalid scale_mode='max'",
        ),
        (
            {"method": "AlignedMTL", "options": {"pref_vector": [1, 2]}},
            "list of 3, a number each for the task and 2 paths",
        ),
        (
            {"method": "Krum", "options": {"n_byzantine": 1}},
            r"options\.n_byzantine: Krum needs at least 4 gradients \(n_byzantine \+ 3\)",
        ),
    ],
)
def test_options_that_do_not_fit_the_paths_are_refused_when_these_are_known(options: Any, rule: str) -> None:
    aggregator = GradientBalance(**options)
    with pytest.raises(ValueError, match=rule):
        connected(aggregator, 2)


def test_a_vector_has_a_value_for_each_gradient() -> None:
    # PCD's own paths alone: one share each.
    aggregator = connected(GradientBalance("PCD", {"tau": [0.0, 0.5]}), 2)
    rows = rows_of((1, 0, 0), (-1, 1, 0), (0, 0, 1))
    weights = all_weights(aggregator, rows)
    direction = weights @ rows
    assert direction @ rows[1] == pytest.approx(0.0, abs=1e-6)
    assert direction @ rows[2] > 0.2


def test_needs_gradients_in_its_scope_alone() -> None:
    for scope in ("last", "all"):
        assert GradientBalance("PCD", scope=scope).needs.gradients == {scope}
    assert GradientBalance("PCD").uncompilable == ("GradientBalance",)
    assert Equal().uncompilable == ()


def test_equal_losses_of_one_gradient_share_alike() -> None:
    # Where all want the same nothing is to be solved: any weights that sum up give the same direction.
    rows = random_rows(0)[:1].expand(3, -1)
    for method in ("AlignedMTL", "ExcessMTL", "IMTLG", "MGDA"):
        assert all_weights(make(method), rows).sum() > 0


MUTANTS = {
    "GradientBalance": [
        ("self._step % self.every == 0", "self._step % self.every == 1"),
        ("self._step % self.every == 0", "True"),
        ("self.training and ", ""),
        ("weights[0] * losses.task", "losses.task"),
        ("(weights[1:] * losses.paths).sum()", "(weights[1:] * losses.paths).mean() * 2"),
        ("(weights[1:] * losses.paths).sum()", "(weights[:-1] * losses.paths).sum()"),
        ("torch.outer(factors, factors)", "factors"),
        ("rows = rows * factors.to(rows)[:, None]", "pass"),
        ("factors * self._method.weights", "self._method.weights"),
        ("factors * self._method.weights", "factors * factors * self._method.weights"),
        ("weights.clamp(-self.max_weight, self.max_weight)", "weights"),
        ("torch.where(weights.isfinite().all(), weights, self._weights)", "weights"),
        ("if not bool(gram.diagonal().any()):", "if False:"),
        ("bool(gram.isfinite().all())", "True"),
        ("lengths[0] / lengths", "1 / lengths", "distill.aggregators.gradient_method"),
        ("lengths[0] / lengths", "lengths / lengths[0]", "distill.aggregators.gradient_method"),
        ("exact @ exact.mT", "exact.abs() @ exact.mT.abs()", "distill.aggregators.multi_objective"),
    ],
}
"""Changes of the source that a golden value notices; see test_mutants."""
