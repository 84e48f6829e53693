"""What every modifier must do, alone and with every aggregator that weighs."""

from __future__ import annotations

import copy
import importlib
import inspect
from dataclasses import replace
from typing import Any

import pytest
import torch
from aggregator_cases import connected, example, gradients_of, losses_of, losses_with_gradients
from modifier_cases import EXAMPLES, losses_at
from torch import Tensor

from distill import aggregators
from distill.aggregators import Adaptive, Aggregate, Aggregator, Equal, Fixed, LogSum, Losses, modifiers
from distill.aggregators.base import weighted_sum
from distill.aggregators.modifiers import Bound, CosineGate, Modifier, Normalize, Ramp

every_modifier = pytest.mark.parametrize("name", EXAMPLES)

WEIGHING = [
    name
    for name in sorted(aggregators.__all__)
    if name != "AdaptivePaper" and getattr(aggregators, name).weighs  # the former is a preset without modifiers
]


@pytest.mark.parametrize("name", sorted(modifiers.__all__))
def test_golden_values_and_documentation(name: str) -> None:
    kind = getattr(modifiers, name)
    assert any(example.startswith(name) for example in EXAMPLES), f"add {name} to EXAMPLES in modifier_cases.py"
    for golden in importlib.import_module(f"test_{kind.__module__.rpartition('.')[2]}").GOLDENS[name]:
        golden(kind)
    documentation = inspect.getdoc(kind) or ""
    assert all(word in documentation for word in ("Source:", "Args:", "Raises:"))
    assert modifiers.__all__ == sorted(modifiers.__all__)


def steps(aggregator: Aggregator, number: int, *, seed: int = 0) -> list[Aggregate]:
    """Make steps with losses that change, and gradients."""
    results = []
    for step in range(number):
        generator = torch.Generator().manual_seed(1000 * seed + step)
        values = (0.1 + torch.rand(len(aggregator.keys), generator=generator)).tolist()
        shared = torch.zeros(4, dtype=torch.float64, requires_grad=True)
        slopes = torch.randn(1 + len(values), 4, generator=generator, dtype=torch.float64)
        levels = torch.tensor([1.0, *values], dtype=torch.float64) + slopes @ shared
        found = gradients_of(levels[0], levels[1:], [shared], shared)
        aggregator.advance(step / number)
        results.append(aggregator.combine(Losses(levels[0], levels[1:], aggregator.keys, step / number, found)))
    return results


@pytest.mark.parametrize("kind", WEIGHING)
@every_modifier
def test_scales_what_reaches_the_student_and_leaves_value_and_task(name: str, kind: str) -> None:
    plain, modified = example(kind), example(kind, [EXAMPLES[name]()])
    for step in range(4):
        losses = replace(losses_with_gradients(*[0.2, 0.7][: len(plain.keys)]), keys=plain.keys, progress=0.25 * step)
        for aggregator in (plain, modified):
            aggregator.advance(0.25 * step)
        expected = modified.modifiers[0]
        unmodified, found = plain.combine(losses), modified.combine(losses)
        torch.testing.assert_close(found.total, unmodified.total, rtol=1e-12, atol=0)
        gradients = torch.autograd.grad(found.total, [losses.paths, losses.task], retain_graph=True)
        torch.testing.assert_close(gradients[0], found.weights.double(), rtol=1e-6, atol=0)
        if not plain.weighs_task:
            assert gradients[1] == 1
        # Once more, in evaluation, where nothing looks.
        expected.eval()
        torch.testing.assert_close(expected.reweigh(unmodified.weights, losses), found.weights)
        expected.train()


@every_modifier
def test_what_the_aggregator_learns_is_left_alone(name: str) -> None:
    def learn(made: list[Modifier]) -> Tensor:
        torch.manual_seed(0)
        aggregator = connected(Adaptive(modifiers=made), 2)
        optimizer = torch.optim.SGD(aggregator.parameters(), lr=0.1, momentum=0.9)
        for step in range(6):
            optimizer.zero_grad()
            (result,) = steps(aggregator, 1, seed=step)
            result.total.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            aggregator.after_step()
        return aggregator.a.detach()

    assert torch.equal(learn([EXAMPLES[name]()]), learn([]))


def test_the_gradient_is_exact_however_far_a_weight_is_brought_down() -> None:
    # LogSum at a loss of zero weighs 1e8; bounded to 1, in float32, it must be 1 and not 1e8 - 1e8 or 8 more.
    for value in (0.0, 3e-8):
        aggregator = connected(LogSum(modifiers=[Bound(0.7)]), 1)
        losses = losses_of(value, dtype=torch.float32)
        aggregate = aggregator.combine(losses)
        aggregate.total.backward()  # type: ignore[no-untyped-call]
        assert losses.paths.grad is not None
        assert losses.paths.grad.item() == aggregate.weights.item() == pytest.approx(0.7)


@every_modifier
def test_saved_restored_and_continued_is_the_same_as_uninterrupted(name: str) -> None:
    for done in range(1, 5):
        whole = connected(Equal(modifiers=[EXAMPLES[name]()]), 3)
        steps(whole, done)
        saved = copy.deepcopy(whole.state_dict())
        restored = connected(Equal(modifiers=[EXAMPLES[name]()]), 3)
        restored.load_state_dict(saved)
        for ours, theirs in zip(steps(whole, 5, seed=1), steps(restored, 5, seed=1), strict=True):
            assert torch.equal(ours.weights, theirs.weights)


@every_modifier
def test_without_paths_there_is_nothing_to_do(name: str) -> None:
    aggregator = connected(Equal(modifiers=[EXAMPLES[name]()]), 0)
    for step in range(3):
        shared = torch.zeros(2, requires_grad=True)
        task = 2.5 + shared.sum()
        paths = torch.zeros(0)
        aggregator.advance(step / 3)
        found = gradients_of(task, paths, [shared], shared)
        aggregate = aggregator.combine(Losses(task, paths, (), step / 3, found))
        aggregate.total.backward()
        assert aggregate.total.item() == 2.5
        assert shared.grad is not None
        assert shared.grad.tolist() == [1.0, 1.0]
        assert aggregate.weights.shape == (0,)
    aggregator.load_state_dict(copy.deepcopy(aggregator.state_dict()))


@every_modifier
@pytest.mark.parametrize("scale", [0.0, 1e-30, 1e-10, 1.0, 1e10, 1e30])
@pytest.mark.parametrize("kind", [Adaptive, LogSum, Equal])
def test_weights_stay_finite_and_no_larger_than_they_may(kind: Any, scale: float, name: str) -> None:
    aggregator = connected(kind(modifiers=[EXAMPLES[name]()]), 2)
    plain = connected(kind(), 2)
    for step in range(5):
        losses = losses_with_gradients(scale, 1.0, dtype=torch.float32)
        aggregator.advance(step / 5)
        found = aggregator.combine(losses)
        assert found.weights.isfinite().all()
        assert (found.weights >= 0).all()
        if not isinstance(aggregator.modifiers[0], Normalize):
            assert (found.weights <= 2 * plain.combine(losses).weights).all()
        assert found.total.isfinite()


def test_modifiers_apply_in_their_order() -> None:
    first = connected(Fixed({"a": 8.0, "b": 2.0}, modifiers=[Bound(4.0), Normalize(3.0)]), 2)
    then = connected(Fixed({"a": 8.0, "b": 2.0}, modifiers=[Normalize(3.0), Bound(2.0)]), 2)
    losses = losses_of(1.0, 1.0)
    torch.testing.assert_close(first.combine(losses).weights.double(), torch.tensor([2.0, 1.0]).double())
    torch.testing.assert_close(then.combine(losses).weights.double(), torch.tensor([2.0, 0.6]).double())


def test_a_growth_bound_behind_a_gate_that_starts_closed_does_not_keep_it_closed() -> None:
    gate = CosineGate(every=1, start="closed", wait=1)
    aggregator = connected(Equal(modifiers=[gate, Bound(growth=2.0, over=3)]), 1)
    found = []
    for cosine in (-0.5, -0.5, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0):
        aggregator.advance(0.0)
        found.append(aggregator.combine(losses_at(0.0, cosine)).weights.item())
    assert found[:3] == [0.0, 0.0, 0.0]
    assert found[-1] == 1.0


class Unweighed(Equal):
    weighs = False


def test_an_aggregator_without_weights_takes_no_modifiers() -> None:
    with pytest.raises(ValueError, match="modifiers change weights, and Unweighed has none"):
        Unweighed(modifiers=[Ramp()])
    assert not Unweighed().modifiers


class Watching(Equal):
    """Keeps what it was given."""

    def forward(self, losses: Losses) -> Aggregate:
        self.seen = losses.paths
        return weighted_sum(losses, torch.full_like(losses.paths, 1.0))


def test_without_modifiers_nothing_is_changed() -> None:
    aggregator = connected(Watching(), 1)
    losses = losses_of(1.0)
    aggregator.combine(losses)
    assert aggregator.seen is losses.paths  # type: ignore[union-attr]
