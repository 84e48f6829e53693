from __future__ import annotations

import logging
import math
from collections.abc import Callable
from typing import Any
from unittest import mock

import pytest
import torch
from aggregator_cases import connected, losses_of
from torch import Tensor, nn

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


def golden_start_at_the_losses(make: Callable[..., Aggregator]) -> None:
    # This rank has L = (1, 0, 1e-6), the mean over all ranks is twice that: a = (ln 2, 0: not begun, -ln 10: bound).
    # Weights e^-a = (1/2, 1, 10); d/da = 1 - e^-a L = (1 - 1/2, 0: not begun, 1 - 1e-5).
    aggregator = connected(make(initial="log_loss", max_weight=10.0), 3)
    set_scalars(aggregator, 0.0, 0.0, 0.0)
    with mock.patch("distill.distributed.mean", lambda values: 2 * values.detach()):
        aggregate = aggregator(losses_of(1.0, 0.0, 1e-6))
        aggregate.total.backward()
        later = aggregator(losses_of(5.0, 0.0, 5.0))
    torch.testing.assert_close(aggregate.weights, torch.tensor([0.5, 1.0, 10.0], dtype=torch.float64))
    slopes = torch.tensor([0.5, 0.0, 1 - 1e-5], dtype=torch.float64)
    torch.testing.assert_close(next(aggregator.parameters()).grad, slopes)
    torch.testing.assert_close(later.weights, aggregate.weights)


GOLDENS = {
    "Adaptive": (
        golden_value_and_gradient,
        golden_start,
        golden_start_at_the_losses,
        golden_bound,
        golden_optimiser_options,
    ),
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


def make_from_losses(**options: Any) -> Adaptive:
    return Adaptive(initial="log_loss", **options)


def test_a_start_at_the_first_losses_spares_a_loud_path_the_detour() -> None:
    # SGD at 0.1: from 0, a loss of 1,000 sends its scalar to 0.1 * 999 and more, where the path is switched off.
    scalars = {}
    for initial in (0.0, "log_loss"):
        aggregator = connected(Adaptive(initial=initial), 1)  # type: ignore[arg-type]
        optimizer = torch.optim.SGD(aggregator.parameters(), lr=0.1, momentum=0.9)
        highest = -math.inf
        for _ in range(50):
            optimizer.zero_grad()
            aggregator(losses_of(1000.0, dtype=torch.float32)).total.backward()
            optimizer.step()
            aggregator.after_step()
            highest = max(highest, aggregator.a.item())
        scalars[initial] = highest
    assert scalars[0.0] > 900
    assert scalars["log_loss"] == pytest.approx(math.log(1000), rel=1e-5)


def test_the_start_is_made_once_in_training_and_in_place() -> None:
    aggregator = connected(make_from_losses(), 2)
    parameter, storage = aggregator.a, aggregator.a.data_ptr()
    aggregator.eval()
    aggregator(losses_of(9.0, 9.0))
    assert aggregator.a.tolist() == [0.0, 0.0]
    aggregator.train()
    first = aggregator(losses_of(9.0, 0.25, dtype=torch.float32))
    torch.testing.assert_close(first.weights, torch.tensor([1 / 9, 4.0]))
    again = aggregator(losses_of(2.0, 2.0, dtype=torch.float32))
    torch.testing.assert_close(again.weights, first.weights)
    assert aggregator.a is parameter
    assert aggregator.a.data_ptr() == storage


def test_two_batches_before_one_backward_pass() -> None:
    aggregator = connected(make_from_losses(), 1)
    totals = [aggregator(losses_of(value, dtype=torch.float32)).total for value in (4.0, 8.0)]
    sum(totals).backward()  # type: ignore[union-attr]
    assert aggregator.a.grad.item() == pytest.approx((1 - 1) + (1 - 2))


def test_a_path_that_waits_starts_when_it_comes() -> None:
    # A schedule holds its loss at 0: no gradient, so no momentum either, until there is a loss to start from.
    aggregator = connected(make_from_losses(), 2)
    optimizer = torch.optim.SGD(aggregator.parameters(), lr=0.1, momentum=0.9)
    for late in (0.0, 0.0, 50.0):
        optimizer.zero_grad()
        aggregate = aggregator(losses_of(3.0, late, dtype=torch.float32))
        aggregate.total.backward()
        optimizer.step()
        aggregator.after_step()
    torch.testing.assert_close(aggregate.weights, torch.tensor([1 / 3, 1 / 50]))


@pytest.mark.parametrize(("max_weight", "highest"), [(10.0, 10.0), (1e4, 1e4), (None, 1e4)])
@pytest.mark.parametrize("value", [1e-10, 1e10])
def test_the_start_is_bounded(value: float, max_weight: float | None, highest: float) -> None:
    aggregator = connected(make_from_losses(alpha_distill=2.0, max_weight=max_weight), 1)
    weight = aggregator(losses_of(value, dtype=torch.float32)).weights.item()
    assert weight == pytest.approx(min(2 / value, highest), rel=1e-4)


def test_a_start_at_the_losses_survives_a_checkpoint_and_an_old_one_still_fits() -> None:
    aggregator = connected(make_from_losses(), 2)
    aggregator(losses_of(9.0, 0.0, dtype=torch.float32))
    restored = connected(make_from_losses(), 2)
    restored.load_state_dict(aggregator.state_dict())
    weights = restored(losses_of(1.0, 5.0, dtype=torch.float32)).weights
    torch.testing.assert_close(weights, torch.tensor([1 / 9, 1 / 5]))
    assert set(connected(Adaptive(), 2).state_dict()) == {"a"}


def test_groups_have_one_scalar_each() -> None:
    aggregator = make_from_losses(granularity={"features": ["attention", "nst"], "logits": ["soft_target"]})
    aggregator.connect({"attention": ("layer1", "layer2"), "soft_target": ("logits",), "nst": ("layer1",)})
    layers = [torch.tensor(value, requires_grad=True) for value in (1.0, 2.0, 5.0, 4.0)]
    paths = aggregator.sums(layers, like=layers[0])
    aggregate = aggregator(Losses(torch.tensor(0.0), paths, aggregator.keys, 0.0))
    aggregate.total.backward()
    assert aggregator.keys == ("features", "logits")
    assert aggregator.a.tolist() == pytest.approx([math.log(7), math.log(5)])
    assert [layer.grad.item() for layer in layers] == pytest.approx([1 / 7, 1 / 7, 1 / 5, 1 / 7])


@pytest.mark.filterwarnings("ignore")
def test_a_start_at_the_losses_compiles() -> None:
    torch._dynamo.reset()
    plain, other = (connected(make_from_losses(), 2) for _ in range(2))

    def combine(paths: Tensor) -> Tensor:
        return other(Losses(torch.tensor(1.0), paths, ("a", "b"), 0.0)).total

    compiled = torch.compile(combine, backend="aot_eager", fullgraph=True)
    for values in ([9.0, 0.0], [3.0, 5.0], [1.0, 1.0]):
        found, wanted = (torch.tensor(values, requires_grad=True) for _ in range(2))
        compiled(found).backward()
        plain(Losses(torch.tensor(1.0), wanted, ("a", "b"), 0.0)).total.backward()
        torch.testing.assert_close(found.grad, wanted.grad)
        torch.testing.assert_close(other.a.grad, plain.a.grad)
    torch._dynamo.reset()


LEARNED = "distill.aggregators.learned_scale"

MUTANTS = {
    "Adaptive": [
        ("torch.exp(-a)", "torch.exp(a)"),
        ("self.alpha_distill * torch.exp", "torch.exp"),
        ("+ self.alpha_distill * a.sum()", "- self.alpha_distill * a.sum()"),
        ("+ self.alpha_distill * a.sum()", "+ a.sum()"),
        ("a.sum()", "a.mean()"),
        ("a.sum()", "a.abs().sum()"),
        ("(weights * losses.paths).sum()", "(weights * losses.paths).mean()"),
        ("(weights * losses.paths).sum()", "(weights.detach() * losses.paths).sum()"),
        ("losses.task + (", "losses.task - ("),
        ("clamp_(min=", "clamp_(max=", LEARNED),
        ("math.log(scale / weight)", "math.log(1 / weight)", LEARNED),
        ("[self.alpha_distill] * num_keys", "[1.0] * num_keys"),
        ("else self.initial))", "else 0.0))", LEARNED),
        ("mean.log()", "mean", LEARNED),
        ("distributed.mean(losses)", "losses.detach()", LEARNED),
        ("~self._begun &", "", LEARNED),
        (".maximum(self._lowest)", "", LEARNED),
        ("torch.where(begun, self.a, self.a.detach())", "self.a", LEARNED),
        ("weight_decay: float | None = 0.0", "weight_decay: float | None = None"),
        ('"lr": self.learning_rate', '"lr": None', LEARNED),
    ],
    "AdaptivePaper": [
        ("weight_decay=None, max_weight=None", "weight_decay=0.0, max_weight=None"),
        ("weight_decay=None, max_weight=None", "weight_decay=None, max_weight=LARGE_WEIGHT"),
        ("learning_rate=None, weight_decay=None", "learning_rate=0.1, weight_decay=None"),
        ("Adaptive(granularity, learning_rate=None", "Adaptive(granularity, initial=1.0, learning_rate=None"),
    ],
}
"""Changes of the source that a golden value notices; see test_mutants."""
