from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from naive_maps import Maps, naive_layers, naive_pooled_alike, positions
from path_cases import batch_of, connect, make_case
from torch import Tensor, nn

from distill.paths import VID, Path
from distill.paths.base import key


def made_plain(path: Path, *, second: float = 1.0, rho: float | None = None) -> Path:
    """Let the mean be `second * s` where `s` is positive: identities but for a factor in the middle convolution."""
    for likelihood in path.likelihoods.values():
        for convolution in (likelihood.mean[0], likelihood.mean[2], likelihood.mean[4]):
            nn.init.dirac_(convolution.weight)
        likelihood.mean[2].weight.data.mul_(second)
        if rho is not None:
            likelihood.rho.data.fill_(rho)
    return path


def golden_density(cls: type[Path]) -> None:
    # First channel: errors (1 - 2, 3 - 1), squares 1 and 4, mean 2.5.  Second: (2 - 2, 0 - 4), mean 8.  Variances 5.
    # ((2.5 / 5 + log 5) + (8 / 5 + log 5)) / 2 / 2 = (1.05 + log 5) / 2.
    student = torch.tensor([[[[1.0, 3.0]], [[2.0, 0.0]]]], dtype=torch.float64)
    teacher = torch.tensor([[[[2.0, 1.0]], [[2.0, 4.0]]]], dtype=torch.float64)
    path = made_plain(connect(cls(), [(2, 1, 2)], [(2, 1, 2)])).double()
    target = path.target({"t0": teacher})
    assert torch.equal(target["s0"], teacher)
    loss = path({"s0": student}, target, batch_of(1))["s0"]
    assert loss.item() == pytest.approx((1.05 + math.log(5)) / 2, rel=1e-6)


def golden_mean_over_the_batch(cls: type[Path]) -> None:
    # Squares 4 in the first sample, 0 in the second: mean 2.  (2 / 5 + log 5) / 2.
    student = torch.tensor([[[[3.0]]], [[[7.0]]]], dtype=torch.float64)
    teacher = torch.tensor([[[[1.0]]], [[[7.0]]]], dtype=torch.float64)
    path = made_plain(connect(cls(), [(1, 1, 1)], [(1, 1, 1)])).double()
    loss = path({"s0": student}, path.target({"t0": teacher}), batch_of(2))["s0"]
    assert loss.item() == pytest.approx((0.4 + math.log(5)) / 2, rel=1e-6)


def golden_smallest_variance(cls: type[Path]) -> None:
    # softplus(-60) is 1e-26: the variance is 1e-5.  No error: log(1e-5) / 2, which is negative.
    features = torch.full((1, 1, 1, 1), 3.0, dtype=torch.float64)
    path = made_plain(connect(cls(), [(1, 1, 1)], [(1, 1, 1)]), rho=-60.0).double()
    loss = path({"s0": features}, path.target({"t0": features}), batch_of(1))["s0"]
    assert loss.item() == pytest.approx(math.log(1e-5) / 2, rel=1e-9)


def golden_softplus(cls: type[Path]) -> None:
    # rho 0: the variance is log 2 + 1e-5.  The error is 3 - 1 = 2, squared 4.
    path = made_plain(connect(cls(), [(1, 1, 1)], [(1, 1, 1)]), rho=0.0).double()
    target = path.target({"t0": torch.ones(1, 1, 1, 1).double()})
    loss = path({"s0": torch.full((1, 1, 1, 1), 3.0).double()}, target, batch_of(1))["s0"]
    variance = math.log(2) + 1e-5
    assert loss.item() == pytest.approx((4 / variance + math.log(variance)) / 2, rel=1e-9)


def golden_two_relus(cls: type[Path]) -> None:
    # A middle convolution of -1.  2 -> 2 -> -2 -> ReLU 0, and -2 -> ReLU 0 -> 0: the mean is 0 for both, errors -3 and
    # -3, squares 9.  Without the first ReLU the second would be 2, without the second one the first would be -2.
    student = torch.tensor([[[[2.0, -2.0]]]], dtype=torch.float64)
    path = made_plain(connect(cls(), [(1, 1, 2)], [(1, 1, 2)]), second=-1.0).double()
    loss = path({"s0": student}, path.target({"t0": torch.full((1, 1, 1, 2), 3.0).double()}), batch_of(1))["s0"]
    assert loss.item() == pytest.approx((9 / 5 + math.log(5)) / 2, rel=1e-6)


def golden_mean_may_be_negative(cls: type[Path]) -> None:
    # A last convolution of -1: 3 -> -3, as the teacher says.  No error.
    path = made_plain(connect(cls(), [(1, 1, 1)], [(1, 1, 1)])).double()
    path.likelihoods[key("s0")].mean[4].weight.data.neg_()
    target = path.target({"t0": torch.full((1, 1, 1, 1), -3.0).double()})
    loss = path({"s0": torch.full((1, 1, 1, 1), 3.0).double()}, target, batch_of(1))["s0"]
    assert loss.item() == pytest.approx(math.log(5) / 2, rel=1e-6)


def golden_variances_are_learned(cls: type[Path]) -> None:
    # The best variance is the mean squared error.  Below it (error 9 > 5) rho must rise, above it (error 1 < 5) fall:
    # d loss / d rho = (1 / var - error / var^2) / 2 * sigmoid(rho), and sigmoid(rho) = 1 - exp(-(var - 1e-5)).
    path = made_plain(connect(cls(), [(2, 1, 1)], [(2, 1, 1)])).double()
    assert sum(parameter.dim() == 1 for parameter in path.parameters()) == 1
    target = path.target({"t0": torch.tensor([4.0, 2.0]).reshape(1, 2, 1, 1).double()})
    loss = path({"s0": torch.ones(1, 2, 1, 1).double()}, target, batch_of(1))["s0"]
    loss.backward()
    gradient = path.likelihoods[key("s0")].rho.grad
    assert gradient is not None
    slope = 1 - math.exp(-5)
    wanted = torch.tensor([(1 / 5 - 9 / 25) / 4 * slope, (1 / 5 - 1 / 25) / 4 * slope], dtype=torch.float64)
    torch.testing.assert_close(gradient, wanted, rtol=1e-4, atol=0)


def golden_pools_the_larger_map(cls: type[Path]) -> None:
    # The teacher's four positions, columns averaged: (2, 5).  The student says (2, 3): squares 0 and 4, mean 2.
    student = torch.tensor([[[[2.0, 3.0]]]], dtype=torch.float64)
    teacher = torch.tensor([[[[1.0, 4.0], [3.0, 6.0]]]], dtype=torch.float64)
    for own, other, shapes in (
        (student, teacher, [(1, 1, 2), (1, 2, 2)]),
        (teacher, student, [(1, 2, 2), (1, 1, 2)]),
    ):
        path = made_plain(connect(cls(), [shapes[0]], [shapes[1]])).double()
        loss = path({"s0": own}, path.target({"t0": other}), batch_of(1))["s0"]
        assert loss.item() == pytest.approx((2 / 5 + math.log(5)) / 2, rel=1e-6)


GOLDENS = {
    "VID": (
        golden_density,
        golden_mean_over_the_batch,
        golden_smallest_variance,
        golden_softplus,
        golden_two_relus,
        golden_mean_may_be_negative,
        golden_variances_are_learned,
        golden_pools_the_larger_map,
    )
}


def reference(path: Path, student: dict[str, Tensor], teacher: dict[str, Tensor]) -> dict[str, float]:
    """Value by value: the mean that the student's map tells, the channel's variance, the density."""
    losses = {}
    for pair in path.pairs:
        likelihood = path.likelihoods[key(pair.layer)]
        own: Maps = student[pair.student].double().tolist()
        other: Maps = teacher[pair.teacher].double().tolist()
        own, other = naive_pooled_alike(own, other)
        means = naive_layers(likelihood.mean, own)
        total, count = 0.0, 0
        for sample, channel, row, column in positions(other):
            variance = math.log(1 + math.exp(likelihood.rho[channel].item())) + 1e-5
            gap = means[sample][channel][row][column] - other[sample][channel][row][column]
            total += (gap**2 / variance + math.log(variance)) / 2
            count += 1
        losses[pair.layer] = total / count
    return losses


def test_declares_that_it_can_be_negative() -> None:
    case = make_case("VID")
    for likelihood in case.path.likelihoods.values():
        likelihood.rho.data.fill_(-3.0)
    case.teacher = {tap: torch.zeros_like(value) for tap, value in case.teacher.items()}
    case.student = {tap: torch.zeros_like(value) for tap, value in case.student.items()}
    assert not VID.non_negative
    assert all(loss < 0 for loss in case.losses().values())


def test_variances_end_at_the_mean_squared_error_of_their_channel() -> None:
    case = make_case("VID", student=[(3, 4, 4)], teacher=[(4, 4, 4)])
    case.teacher["t0"] = case.teacher["t0"] * torch.tensor([0.3, 1.0, 2.0, 4.0], dtype=torch.float64)[:, None, None]
    likelihood = case.path.likelihoods[key("s0")]
    optimizer = torch.optim.LBFGS([likelihood.rho], line_search_fn="strong_wolfe", max_iter=200)
    before = case.loss().item()

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = case.loss()
        loss.backward()
        return loss

    optimizer.step(closure)
    errors = (likelihood.mean(case.student["s0"]) - case.teacher["t0"]).square().mean(dim=(0, 2, 3))
    torch.testing.assert_close(likelihood.variance, errors, rtol=1e-3, atol=0)
    assert case.loss().item() < before
    # At the best variances the error's part of the loss is 1/2 a channel, whatever its size.
    assert case.loss().item() == pytest.approx((1 + likelihood.variance.log().mean().item()) / 2, rel=1e-4)


def test_variances_are_saved_and_every_optimiser_gets_to_know_them() -> None:
    path = make_case("VID").path
    names = [name for name, _ in path.named_parameters() if name.endswith(".rho")]
    assert names == ["likelihoods.tap/s0.rho", "likelihoods.tap/s1.rho"]
    assert set(names) <= path.state_dict().keys()


@pytest.mark.parametrize("variance", [1.1e-5, 0.1, 1.0, 5.0, 30.0, 2000.0])
def test_initial_variance_is_what_was_asked_for(variance: float) -> None:
    path = connect(VID(initial_variance=variance), [(2, 2, 2)], [(3, 2, 2)])
    found = path.likelihoods[key("s0")].variance
    torch.testing.assert_close(found, torch.full((3,), variance), rtol=1e-5, atol=1e-9)


@pytest.mark.parametrize("variance", [1e-5, 0.0, -1.0, float("inf"), float("nan"), "5", None])
def test_initial_variance_must_exceed_what_is_added(variance: Any) -> None:
    with pytest.raises(ValueError, match="initial_variance must be a finite number above 1e-05, found"):
        VID(initial_variance=variance)


SIZES = "distill.paths.sizes"

MUTANTS = {
    "VID": [
        ("error / variance + variance.log()", "error / variance - variance.log()"),
        ("error / variance + variance.log()", "error / variance"),
        ("error / variance + variance.log()", "error + variance.log()"),
        ("error / variance + variance.log()", "error / variance.sqrt() + variance.log()"),
        (".mean() / 2", ".mean()"),
        (".mean() / 2", ".sum() / 2"),
        (".square().mean(dim=(0, 2, 3))", ".square().sum(dim=(0, 2, 3))"),
        (".square().mean(dim=(0, 2, 3))", ".square().mean(dim=(2, 3)).sum(dim=0)"),
        (".square().mean(dim=(0, 2, 3))", ".abs().mean(dim=(0, 2, 3))"),
        ("self.mean(student) - teacher", "self.mean(student) + teacher"),
        ("EPSILON = 1e-5", "EPSILON = 1e-8"),
        ("F.softplus(self.rho) + EPSILON", "F.softplus(self.rho)"),
        ("F.softplus(self.rho) + EPSILON", "self.rho.exp() + EPSILON"),
        ("F.softplus(self.rho) + EPSILON", "F.softplus(self.rho).detach() + EPSILON"),
        ("initial_variance: float = 5.0", "initial_variance: float = 1.0"),
        ("nn.Parameter(torch.full((out_channels,), rho))", "torch.full((out_channels,), rho)"),
        ("torch.full((out_channels,), rho)", "torch.full((out_channels,), variance)"),
        (
            "nn.Conv2d(in_channels, out_channels, kernel_size=1, bias=False),\n            nn.ReLU(),",
            "nn.Conv2d(in_channels, out_channels, kernel_size=1, bias=False),\n            nn.Identity(),",
        ),
        (
            "nn.ReLU(),\n            nn.Conv2d(out_channels, out_channels, kernel_size=1, bias=False),\n        )",
            "nn.Identity(),\n            nn.Conv2d(out_channels, out_channels, kernel_size=1, bias=False),\n        )",
        ),
        (
            "nn.Conv2d(out_channels, out_channels, kernel_size=1, bias=False),\n        )",
            "nn.Conv2d(out_channels, out_channels, kernel_size=1, bias=False),\n            nn.ReLU(),\n        )",
        ),
        ("F.adaptive_avg_pool2d", "F.adaptive_max_pool2d", SIZES),
        ("min(one.shape[-2], other.shape[-2])", "max(one.shape[-2], other.shape[-2])", SIZES),
    ],
}
"""Changes of the source that a golden value notices; see test_mutants."""
