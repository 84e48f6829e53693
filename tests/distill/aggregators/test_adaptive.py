from __future__ import annotations

import logging
import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from aggregator_cases import connected, losses_of
from torch import nn

from distill.aggregators import Adaptive, AdaptivePaper, Aggregator, Losses


def set_scalars(aggregator: Aggregator, *values: float) -> None:
    """Set the learned scalars and make them float64."""
    (parameter,) = aggregator.parameters()
    parameter.data = torch.tensor(values, dtype=torch.float64)


def golden_value_and_gradient(make: Callable[..., Aggregator]) -> None:
    # a = (ln 2, -ln 3), so exp(-a) = (1/2, 3).  L = (4, 1), L_task = 1, alpha = 1/2.
    # Total: 1 + 1/2 (1/2 * 4 + 3 * 1 + ln 2 - ln 3) = 3.5 + 1/2 ln(2/3).  Weights with alpha: (1/4, 3/2).
    # d/da = alpha (1 - exp(-a) L) = 1/2 (1 - 2, 1 - 3) = (-1/2, -1).
    aggregator = connected(make(alpha_distill=0.5), 2)
    set_scalars(aggregator, math.log(2), -math.log(3))
    losses = losses_of(4.0, 1.0)
    aggregate = aggregator(losses)
    aggregate.total.backward()
    expected = torch.tensor([0.25, 1.5], dtype=torch.float64)
    torch.testing.assert_close(aggregate.total.item(), 3.5 + 0.5 * math.log(2 / 3))
    torch.testing.assert_close(aggregate.weights, expected)
    torch.testing.assert_close(losses.paths.grad, expected)
    torch.testing.assert_close(losses.task.grad, torch.ones((), dtype=torch.float64))
    torch.testing.assert_close(next(aggregator.parameters()).grad, torch.tensor([-0.5, -1.0], dtype=torch.float64))


def golden_start(make: Callable[..., Aggregator]) -> None:
    # a = 0: every weight is alpha, and the total that of Equal: 1 + 4 + 1 = 6.  initial = ln 2: 1 + 2 + 1/2 + 2 ln 2.
    assert connected(make(), 2)(losses_of(4.0, 1.0)).total.item() == 6.0
    total = connected(make(initial=math.log(2)), 2)(losses_of(4.0, 1.0)).total.item()
    torch.testing.assert_close(total, 3.5 + 2 * math.log(2), rtol=1e-6, atol=0)


def golden_bound(make: Callable[..., Aggregator]) -> None:
    # alpha exp(-a) <= 8 with alpha = 2 means a >= -ln 4.  A scalar above it stays where it is.
    aggregator = connected(make(alpha_distill=2.0, max_weight=8.0), 3)
    set_scalars(aggregator, -10.0, -1.0, 10.0)
    aggregator.after_step()
    expected = torch.tensor([-math.log(4), -1.0, 10.0], dtype=torch.float64)
    torch.testing.assert_close(next(aggregator.parameters()).data, expected)
    torch.testing.assert_close(aggregator(losses_of(1.0, 1.0, 1.0)).weights[0].item(), 8.0)


def golden_optimiser_options(make: Callable[..., Aggregator]) -> None:
    assert make().parameter_options() == {"weight_decay": 0.0}
    assert make(learning_rate=0.01, weight_decay=None).parameter_options() == {"lr": 0.01}


def golden_paper_preset(make: Callable[..., Aggregator]) -> None:
    # The paper's code: exp(-0) L + 0 at the start, no option of its own for the optimiser, and no bound:
    # a = -20 stays, with weight exp(20).
    aggregator = connected(make(), 2)
    assert aggregator(losses_of(4.0, 1.0)).total.item() == 6.0
    assert aggregator.parameter_options() == {}
    set_scalars(aggregator, -20.0, 0.0)
    aggregator.after_step()
    torch.testing.assert_close(aggregator(losses_of(1.0, 1.0)).weights[0].item(), math.exp(20))


GOLDENS = {
    "Adaptive": (golden_value_and_gradient, golden_start, golden_bound, golden_optimiser_options),
    "AdaptivePaper": (golden_paper_preset,),
}


@pytest.mark.parametrize("granularity", ["path", "layer"])
def test_paper_preset_is_the_papers_formula(granularity: Any) -> None:
    # Two paths over three stages, and one over the logits: 3 scalars, or 7 layer-wise.
    stages = ("layer1", "layer2", "layer3")
    aggregator = AdaptivePaper(granularity)
    aggregator.connect({"attention": stages, "nst": stages, "soft_target": ("logits",)})
    num_scalars = {"path": 3, "layer": 7}[granularity]
    assert len(aggregator.keys) == num_scalars
    a = torch.randn(num_scalars, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    values = torch.rand(num_scalars, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    set_scalars(aggregator, *a.tolist())
    losses = losses_of(*values.tolist(), task=2.5)
    aggregate = aggregator(losses)
    aggregate.total.backward()
    wanted = 2.5
    for scalar, loss in zip(a.tolist(), values.tolist(), strict=True):
        wanted += math.exp(-scalar) * loss + scalar
    assert aggregate.total.item() == pytest.approx(wanted, rel=1e-12)
    slopes = [1 - math.exp(-scalar) * loss for scalar, loss in zip(a.tolist(), values.tolist(), strict=True)]
    assert aggregator.a.grad.tolist() == pytest.approx(slopes, rel=1e-9)


def test_layers_are_named_by_path_and_layer() -> None:
    aggregator = Adaptive("layer")
    aggregator.connect({"attention": ("layer1", "layer2"), "soft_target": ("logits",)})
    assert aggregator.keys == ("attention.layer1", "attention.layer2", "soft_target.logits")


@pytest.mark.parametrize(("oracle", "factor", "sign"), [("IMTLL", 1, -1), ("UW", 2, 1)])
def test_equals_published_weightings(oracle: str, factor: int, sign: int) -> None:
    # IMTL-L with the sign of its scalar flipped; twice the uncertainty weighting of Kendall et al.
    scalarization = pytest.importorskip("torchjd.scalarization")
    ours, theirs = connected(Adaptive(max_weight=None), 3), getattr(scalarization, oracle)(3)
    set_scalars(ours, 0.3, -2.0, 5.0)
    parameter = next(theirs.parameters())
    parameter.data = sign * torch.tensor([0.3, -2.0, 5.0], dtype=torch.float64)
    losses = losses_of(0.2, 3.0, 40.0, task=0.0)
    total = ours(losses).total
    total.backward()
    values = losses.paths.detach().requires_grad_()
    wanted = factor * theirs(values)
    wanted.backward()
    torch.testing.assert_close(total, wanted)
    torch.testing.assert_close(losses.paths.grad, values.grad)
    torch.testing.assert_close(ours.a.grad, sign * parameter.grad)


def test_contribution_of_a_constant_loss_settles_at_one() -> None:
    aggregator = connected(Adaptive(), 4)
    optimizer = torch.optim.SGD(aggregator.parameters(), lr=0.1, momentum=0.9)
    values = (0.02, 0.5, 1.0, 3.0)
    for _ in range(400):
        optimizer.zero_grad()
        aggregator(losses_of(*values, dtype=torch.float32)).total.backward()
        optimizer.step()
        aggregator.after_step()
    contributions = torch.exp(-aggregator.a) * torch.tensor(values)
    torch.testing.assert_close(contributions, torch.ones(4), rtol=1e-4, atol=0)
    torch.testing.assert_close(aggregator.a.data, torch.tensor(values).log(), rtol=1e-4, atol=1e-4)


def test_scaling_a_loss_shifts_its_scalar_and_leaves_the_gradient() -> None:
    # At equilibrium a = ln(c L), so exp(-a) c = 1 / L whatever c.
    for scale in (1.0, 1e-3, 50.0):
        aggregator = connected(Adaptive(max_weight=None), 1)
        set_scalars(aggregator, math.log(scale * 0.4))
        weight = aggregator(losses_of(scale * 0.4)).weights.item()
        assert weight * scale == pytest.approx(1 / 0.4)


def test_weight_comes_back_from_the_bound_when_the_loss_grows() -> None:
    aggregator = connected(Adaptive(max_weight=10.0), 1)
    optimizer = torch.optim.SGD(aggregator.parameters(), lr=0.5, momentum=0.9)
    weights = []
    for step in range(120):
        optimizer.zero_grad()
        aggregate = aggregator(losses_of(1e-6 if step < 60 else 2.0, dtype=torch.float32))
        aggregate.total.backward()
        optimizer.step()
        aggregator.after_step()
        weights.append(aggregate.weights.item())
    assert max(weights) == pytest.approx(10.0)
    assert weights[59] == pytest.approx(10.0), "held at the bound, while the optimum is a million"
    assert weights[-1] < 5, "a clamp in the forward pass has no gradient and would hold it there for good"


def test_paper_preset_warns_once_and_names_the_path(caplog: pytest.LogCaptureFixture) -> None:
    aggregator = AdaptivePaper()
    aggregator.connect({"attention": ("layer1",), "soft_target": ("logits",)})
    with caplog.at_level(logging.WARNING, logger="distill"):
        set_scalars(aggregator, -math.log(0.99e4), 0.0)
        aggregator.after_step()
        assert not caplog.records
        for _ in range(3):
            set_scalars(aggregator, -math.log(1.01e4), 0.0)
            aggregator.after_step()
    (record,) = caplog.records
    assert "the learned weight of attention has passed 10000" in record.getMessage()
    assert "max_weight" in record.getMessage()


def test_a_bounded_weight_does_not_warn(caplog: pytest.LogCaptureFixture) -> None:
    aggregator = connected(Adaptive(), 1)
    set_scalars(aggregator, -50.0)
    aggregator.after_step()
    assert not caplog.records


@pytest.mark.parametrize(("make", "decays"), [(Adaptive, False), (AdaptivePaper, True)])
def test_weight_decay_of_the_optimiser(make: Callable[..., Adaptive], decays: bool) -> None:
    # With a loss at its optimum, exp(-a) L = 1, only weight decay moves a: by lr * decay * a = .1 * .5 * 2.
    aggregator = connected(make(), 1)
    set_scalars(aggregator, 2.0)
    group = {"params": list(aggregator.parameters()), **aggregator.parameter_options()}
    optimizer = torch.optim.SGD([{"params": [nn.Parameter(torch.zeros(1))]}, group], lr=0.1, weight_decay=0.5)
    aggregator(losses_of(math.exp(2.0))).total.backward()
    optimizer.step()
    assert aggregator.a.item() == pytest.approx(1.9 if decays else 2.0)


@pytest.mark.parametrize(
    ("options", "rule"),
    [
        ({"granularity": "stage"}, "granularity must be 'path', 'layer' or a mapping of groups, found 'stage'"),
        ({"alpha_distill": -1}, "alpha_distill must be a finite number of at least 0, found -1"),
        ({"learning_rate": 0}, "learning_rate must be a finite number above 0, found 0"),
        ({"weight_decay": -0.1}, "weight_decay must be a finite number of at least 0, found -0.1"),
        ({"max_weight": 0}, "max_weight must be a finite number above 0, found 0"),
        ({"max_weight": math.inf}, "max_weight must be a finite number above 0, found inf"),
        ({"initial": math.nan}, "initial must be a finite number, found nan"),
        ({"initial": "0"}, "initial must be a finite number, found '0'"),
        ({"max_weight": 0.5}, "max_weight must be at least the first weight"),
        ({"initial": -10.0}, "max_weight must be at least the first weight"),
        ({"alpha_distill": 1e5}, "max_weight must be at least the first weight"),
    ],
)
def test_options_are_checked_at_construction(options: dict[str, Any], rule: str) -> None:
    with pytest.raises(ValueError, match=rule):
        Adaptive(**options)


def test_alpha_zero_switches_distillation_off() -> None:
    aggregator = connected(Adaptive(alpha_distill=0), 1)
    aggregator.after_step()
    assert aggregator(losses_of(3.0)).total.item() == 1.0


def test_a_negative_loss_would_diverge() -> None:
    # Why such paths are refused: L = -0.2 drives the weight beyond any bound within a few dozen steps.
    aggregator = connected(Adaptive(max_weight=None), 1)
    optimizer = torch.optim.SGD(aggregator.parameters(), lr=0.1, momentum=0.9)
    for _ in range(30):
        optimizer.zero_grad()
        losses = Losses(torch.tensor(0.0), torch.tensor([-0.2]), ("a",), 0.0)
        aggregate = aggregator(losses)
        aggregate.total.backward()
        optimizer.step()
    assert not aggregate.weights.item() < 1e6


MUTANTS = {
    "Adaptive": [
        ("torch.exp(-self.a)", "torch.exp(self.a)"),
        ("self.alpha_distill * torch.exp", "torch.exp"),
        ("+ self.alpha_distill * self.a.sum()", "- self.alpha_distill * self.a.sum()"),
        ("+ self.alpha_distill * self.a.sum()", "+ self.a.sum()"),
        ("self.a.sum()", "self.a.mean()"),
        ("self.a.sum()", "self.a.abs().sum()"),
        ("(weights * losses.paths).sum()", "(weights * losses.paths).mean()"),
        ("(weights * losses.paths).sum()", "(weights.detach() * losses.paths).sum()"),
        ("losses.task + (", "losses.task - ("),
        ("clamp_(min=", "clamp_(max="),
        ("math.log(self.alpha_distill / weight)", "math.log(1 / weight)"),
        ("torch.full((num_keys,), self.initial)", "torch.zeros(num_keys)"),
        ("weight_decay: float | None = 0.0", "weight_decay: float | None = None"),
        ('"lr": self.learning_rate', '"lr": None'),
    ],
    "AdaptivePaper": [
        ("weight_decay=None, max_weight=None", "weight_decay=0.0, max_weight=None"),
        ("weight_decay=None, max_weight=None", "weight_decay=None, max_weight=LARGE_WEIGHT"),
        ("learning_rate=None, weight_decay=None", "learning_rate=0.1, weight_decay=None"),
        ("Adaptive(granularity, learning_rate=None", "Adaptive(granularity, initial=1.0, learning_rate=None"),
    ],
}
"""Changes of the source that a golden value notices; see test_mutants."""
