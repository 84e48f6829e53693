"""What every aggregator must do: each test runs for all of `distill.aggregators.__all__`, by path and by layer."""

from __future__ import annotations

import copy
import inspect
import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import pytest
import torch
from aggregator_cases import (
    EXAMPLES,
    METHODS,
    Example,
    connected,
    example,
    gradients_of,
    losses_with_gradients,
    losses_with_rows,
    module_of,
    variants,
)
from torch import Tensor, nn

from distill import aggregators
from distill.aggregators import (
    DWA,
    Adaptive,
    AdaptivePaper,
    Aggregate,
    Aggregator,
    DistPro,
    Equal,
    Fixed,
    GeometricMean,
    GradNorm,
    LogSum,
    Losses,
    RandomWeights,
    SoftmaxWeights,
    UncertaintyWeighting,
)
from distill.aggregators.gradient_method import GradientMethod
from distill.aggregators.multi_objective import DIRECTIONS, WEIGHTINGS

NAMES = sorted(aggregators.__all__)

every_aggregator = pytest.mark.parametrize("variant", variants())


def test_registry_names_each_once_and_makes_aggregators_alone() -> None:
    assert len(set(NAMES)) == len(NAMES)
    assert all(isinstance(example(variant), Aggregator) for variant in variants())


@pytest.mark.parametrize("name", NAMES)
def test_golden_values(name: str) -> None:
    tests = module_of(name)
    goldens = getattr(tests, "GOLDENS", {}).get(name)
    assert goldens, f"add hand-derived values of {name}, functions of the class, to GOLDENS in {tests.__name__}.py"
    for golden in goldens:
        golden(getattr(aggregators, name))


@pytest.mark.parametrize("name", NAMES)
def test_docstring_names_equation_source_cost_and_arguments(name: str) -> None:
    told = inspect.getdoc(getattr(aggregators, name)) or ""
    assert "::\n" in told, "write down the sum that is descended, or the weights"
    assert "Source:" in told, "say which equation of which paper this is"
    assert re.search(r"\bcosts?\b", told, re.IGNORECASE), "say what it costs: passes, memory, all-reduces"
    assert "Args:" in told, "say what the arguments mean, and their bounds"


def losses_for(aggregator: Aggregator, seed: int = 0, dtype: torch.dtype = torch.float64) -> Losses:
    values = 0.1 + torch.rand(len(aggregator.keys), generator=torch.Generator().manual_seed(seed))
    losses = losses_with_gradients(*values.tolist(), dtype=dtype)
    return replace(losses, keys=aggregator.keys, progress=0.5)


def test_every_method_of_multi_objective_optimisation_takes_part() -> None:
    named = {name.rpartition(" by ")[2] for name in METHODS} | {"PCD", "ConFIG"}  # the latter as EXAMPLES has them
    assert named == {*WEIGHTINGS, *DIRECTIONS}


@every_aggregator
def test_weights_are_what_multiplies_each_loss(variant: str) -> None:
    aggregator = example(variant)
    losses = losses_for(aggregator)
    aggregator.advance(0.5)
    aggregate = aggregator.combine(losses)
    assert aggregate.total.shape == ()
    assert aggregate.weights.shape == (len(aggregator.keys),)
    assert not aggregate.weights.requires_grad
    paths, task = torch.autograd.grad(aggregate.total, [losses.paths, losses.task])
    if aggregator.weighs:
        torch.testing.assert_close(paths, aggregate.weights.double())
    if not aggregator.weighs_task:
        torch.testing.assert_close(task, torch.ones((), dtype=torch.float64))
        assert aggregate.task_weight is None or not aggregator.weighs
    else:
        assert aggregate.task_weight is not None
        assert not aggregate.task_weight.requires_grad
        torch.testing.assert_close(task, aggregate.task_weight.double())


def is_separate(aggregator: Aggregator) -> bool:
    return aggregator.separate and all(modifier.separate for modifier in aggregator.modifiers)


@pytest.mark.parametrize("variant", [variant for variant in variants() if is_separate(example(variant))])
def test_a_loss_meets_its_own_weight(variant: str) -> None:
    # Moving one loss must leave the gradient of every other one alone.  In the first step: what it remembers of one
    # loss may well tell on the weight of that loss in the next.
    aggregator = example(variant)
    losses = losses_for(aggregator)
    before = copy.deepcopy(aggregator).combine(losses).weights
    for index in range(len(aggregator.keys)):
        values = losses.paths.detach().clone()
        values[index] *= 2
        after = copy.deepcopy(aggregator).combine(replace(losses, paths=values)).weights
        others = [position for position in range(len(aggregator.keys)) if position != index]
        assert torch.equal(after[others], before[others])


class Toy(nn.Module):
    """A student of two numbers, with as many losses as the aggregator has keys."""

    def __init__(self, aggregator: Aggregator) -> None:
        super().__init__()
        self.features = nn.Parameter(torch.tensor([0.5, -0.25]))
        self.aggregator = aggregator

    def step(self, optimizer: torch.optim.Optimizer, seed: int) -> Tensor:
        goals = torch.randn(len(self.aggregator.keys), 2, generator=torch.Generator().manual_seed(seed))
        self.aggregator.advance(seed / 10)
        place = self.features * 1
        task, paths = place.square().sum(), (place - goals).square().sum(dim=1)
        gradients = gradients_of(task, paths, [self.features], place)
        aggregate = self.aggregator.combine(Losses(task, paths, self.aggregator.keys, seed / 10, gradients))
        optimizer.zero_grad()
        aggregate.total.backward()
        optimizer.step()
        again = (self.features.detach() - goals).square().sum(dim=1)
        held_out = self.features.detach() - torch.tensor([1.0, -1.0])  # of half the squared distance to there
        self.aggregator.after_step(again, {"last": held_out, "all": held_out})
        if seed % 2:
            self.aggregator.after_epoch()
        return aggregate.weights

    def optimizer(self) -> torch.optim.Optimizer:
        own = {"params": list(self.aggregator.parameters()), **self.aggregator.parameter_options()}
        groups = [{"params": [self.features]}, own] if own["params"] else [{"params": [self.features]}]
        return torch.optim.SGD(groups, lr=0.05, momentum=0.9, weight_decay=1e-4)


@every_aggregator
def test_saved_restored_and_continued_is_the_same_as_uninterrupted(variant: str) -> None:
    toy = Toy(example(variant))
    optimizer = toy.optimizer()
    for seed in range(3):
        toy.step(optimizer, seed)
    saved = copy.deepcopy((toy.state_dict(), optimizer.state_dict()))
    restored = Toy(example(variant))
    restored.load_state_dict(saved[0])
    restored_optimizer = restored.optimizer()
    restored_optimizer.load_state_dict(saved[1])
    for seed in range(3, 6):
        assert torch.equal(toy.step(optimizer, seed), restored.step(restored_optimizer, seed))
    assert torch.equal(toy.features, restored.features)


@every_aggregator
def test_bfloat16_autocast_changes_nothing(variant: str) -> None:
    aggregator = example(variant)
    losses = losses_for(aggregator, dtype=torch.float32)
    twin = copy.deepcopy(aggregator)
    for each in (aggregator, twin):
        each.advance(0.5)
    outside = aggregator.combine(losses)
    with torch.autocast("cpu", torch.bfloat16):
        inside = twin.combine(losses)
    assert inside.total.dtype == torch.float32
    assert torch.equal(inside.total, outside.total)
    assert torch.equal(inside.weights, outside.weights)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("variant", [variant for variant in variants() if not example(variant).needs.gradients])
def test_compiles_to_one_graph_that_computes_the_same(variant: str) -> None:
    plain, other = example(variant), example(variant)
    torch._dynamo.reset()

    def combine(task: Tensor, paths: Tensor, progress: Tensor) -> tuple[Tensor, Tensor]:
        aggregate = other.combine(Losses(task, paths, other.keys, progress))
        return aggregate.total, aggregate.weights

    compiled = torch.compile(combine, backend="aot_eager", fullgraph=True)
    for step in range(3):
        losses = losses_for(plain, seed=step, dtype=torch.float32)
        task, paths, progress = losses.task.detach(), losses.paths.detach(), torch.tensor(step / 3)
        for aggregator in (plain, other):
            aggregator.advance(step / 3)
        total, weights = compiled(task, paths, progress)
        wanted = plain.combine(Losses(task, paths, plain.keys, progress))
        torch.testing.assert_close(total, wanted.total)
        torch.testing.assert_close(weights, wanted.weights)
        for aggregator in (plain, other):
            aggregator.after_step(paths / 2)
            aggregator.after_epoch()
    torch._dynamo.reset()


@every_aggregator
def test_paths_that_can_be_negative_are_taken_or_refused_as_declared(variant: str) -> None:
    aggregator = example(variant)
    layers = EXAMPLES.get(variant.partition(" by layer")[0], Example()).layers  # the modified ones take two paths
    if aggregator.accepts_negative:
        aggregator.connect(layers, negative=list(layers))
        return
    with pytest.raises(ValueError, match="to infinity") as refusal:
        aggregator.connect(layers, negative=["soft_target"])
    message = str(refusal.value)
    assert type(aggregator).__name__ in message
    assert "soft_target" in message
    assert "use Equal or Fixed" in message


NUM_HARD_STEPS, POISONED = 40, (3, 20)  # the first one while first losses are still being taken


def hard_values(step: int, key: int) -> float:
    """Return the size of any kind of loss in turn, of another kind for each key."""
    return (0.0, 1.0, 1e30, 1e-38, 1e-44)[(step + key * (1 + step // 5)) % 5]


def constant_values(step: int, key: int) -> float:
    return (2.0, 3.0, 1e-3)[key]


def values_of_either_sign(step: int, key: int) -> float:
    return (-1.0) ** (step + key) * 10.0 ** ((7 * step + key) % 11 - 5)


def hard_step(aggregator: Aggregator, values: Sequence[float], step: int) -> tuple[Aggregate, Tensor]:
    """Make a step of these float32 losses; return what it came to, and the gradient of what the student has."""
    generator = torch.Generator().manual_seed(step)
    losses, shared = losses_with_rows(torch.randn(1 + len(values), 4, generator=generator), *values)
    progress = step / NUM_HARD_STEPS
    aggregator.advance(progress)
    aggregate = aggregator.combine(replace(losses, keys=aggregator.keys, progress=progress))
    aggregate.total.backward()
    assert shared.grad is not None
    return aggregate, shared.grad


def draws(variant: str) -> list[Callable[[int, int], float]]:
    """Return what an aggregator meets; one that looks at no value, but at gradients, meets the same in all draws."""
    aggregator = example(variant)
    if isinstance(aggregator, GradientMethod):
        return [hard_values]
    signed = [values_of_either_sign] if aggregator.accepts_negative else []
    return [hard_values, constant_values, *signed]


@pytest.mark.parametrize(("variant", "draw"), [(variant, draw) for variant in variants() for draw in draws(variant)])
def test_stays_finite_and_bounded_and_forgets_a_batch_of_nan(variant: str, draw: Callable[[int, int], float]) -> None:
    aggregator = example(variant)
    # G / epsilon, of a mean G of losses as large as 1e30; of the others at most 1 / epsilon.
    largest = 1e20 if isinstance(aggregator, GeometricMean) else 1.01e8
    own = list(aggregator.parameters())
    optimizer = torch.optim.SGD([{"params": own, **aggregator.parameter_options()}], lr=0.05) if own else None
    for step in range(NUM_HARD_STEPS):
        poisoned = step in POISONED
        values = [math.nan if poisoned else draw(step, key) for key in range(len(aggregator.keys))]
        aggregate, gradient = hard_step(aggregator, values, step)
        if not poisoned:
            assert aggregate.total.isfinite(), step
            assert aggregate.weights.isfinite().all(), step
            assert gradient.isfinite().all(), step
            assert aggregate.weights.abs().max() <= largest, step
        if optimizer is not None:
            if not poisoned:  # a training stops there, or goes on without this step
                optimizer.step()
            optimizer.zero_grad()
        held_out = torch.full((4,), math.nan if poisoned else 1.0)
        aggregator.after_step(0.9 * torch.tensor(values), {"last": held_out, "all": held_out})
        if step % 5 == 4:
            aggregator.after_epoch()


LAYERS = {"attention": ("layer1", "layer2"), "soft_target": ("logits",), "hint": ("layer2",)}
GROUPS = {"late": ["soft_target", "hint"], "early": ["attention"]}


def test_groups_of_paths_have_one_weight_each() -> None:
    aggregator = Fixed({"early": 10.0, "late": 1.0}, granularity=GROUPS)
    aggregator.connect(LAYERS)
    assert aggregator.keys == ("late", "early")
    assert aggregator.places() == ((2, 3), (0, 1))
    layers = [torch.tensor(value, requires_grad=True) for value in (1.0, 2.0, 4.0, 8.0)]
    sums = aggregator.sums(layers, like=layers[0])
    assert sums.tolist() == [12.0, 3.0]
    aggregate = aggregator.combine(Losses(torch.tensor(0.5), sums, aggregator.keys, 0.0))
    assert aggregate.total.item() == 0.5 + 12 + 10 * 3
    aggregate.total.backward()
    assert aggregator.spread(aggregate.weights).tolist() == [10.0, 10.0, 1.0, 1.0]
    assert [layer.grad.item() for layer in layers] == [10.0, 10.0, 1.0, 1.0]


def test_a_group_a_path_and_one_group_are_what_they_say() -> None:
    values = [torch.tensor(value) for value in (1.0, 2.0, 4.0, 8.0)]
    for granularity, wanted in (
        ("path", [3.0, 4.0, 8.0]),
        ("layer", [1.0, 2.0, 4.0, 8.0]),
        ({name: [name] for name in LAYERS}, [3.0, 4.0, 8.0]),
        ({"all": list(LAYERS)}, [15.0]),
    ):
        aggregator = Equal(granularity=granularity)
        aggregator.connect(LAYERS)
        assert aggregator.sums(values, like=values[0]).tolist() == wanted


@pytest.mark.parametrize(
    ("groups", "finding"),
    [
        ({"late": ["soft_target"], "early": ["attention"]}, "paths in none: hint"),
        ({**GROUPS, "more": ["hint"]}, "in several: hint"),
        ({"late": ["soft_target", "hint", "hint"], "early": ["attention"]}, "in several: hint"),
        ({**GROUPS, "more": ["hnit"]}, "names of no path: hnit"),
        ({**GROUPS, "more": ["hnit"]}, r"soft_target, hint\. Did you mean 'hint'\?$"),
        ({**GROUPS, "more": []}, "may be empty; empty groups: more; paths: attention, soft_target, hint$"),
        ({}, "paths in none: attention, soft_target, hint"),
    ],
)
def test_every_path_is_in_one_group(groups: Mapping[str, Sequence[str]], finding: str) -> None:
    with pytest.raises(ValueError, match=f"granularity: every path must be in one group.*{finding}"):
        Equal(granularity=groups).connect(LAYERS)


@pytest.mark.parametrize(
    ("granularity", "rule"),
    [
        ("paths", "granularity must be 'path', 'layer' or a mapping of groups, found 'paths'"),
        (None, "granularity must be 'path', 'layer' or a mapping of groups, found None"),
        (["attention"], "granularity must be 'path', 'layer' or a mapping of groups, found"),
        ({"early": "attention"}, "granularity.early must be a list of paths' names, found 'attention'"),
        ({"early": None}, "granularity.early must be a list of paths' names, found None"),
    ],
)
def test_granularity_is_checked_at_construction(granularity: Any, rule: str) -> None:
    with pytest.raises(ValueError, match=rule):
        Equal(granularity=granularity)


@pytest.mark.parametrize(
    "make",
    [
        Adaptive,
        lambda: Adaptive(initial="log_loss"),
        AdaptivePaper,
        DistPro,
        DWA,
        Equal,
        lambda: Fixed({}),
        GradNorm,
        LogSum,
        RandomWeights,
        SoftmaxWeights,
        UncertaintyWeighting,
    ],
)
def test_without_paths_the_task_is_all(make: Callable[[], Aggregator]) -> None:
    aggregator = connected(make(), 0)
    task = torch.tensor(2.5, requires_grad=True)
    aggregate = aggregator(Losses(task, torch.zeros(0), (), 0.0))
    aggregate.total.backward()
    aggregator.after_step()
    assert aggregate.total.item() == 2.5
    assert task.grad.item() == 1.0
    assert aggregate.weights.shape == (0,)
