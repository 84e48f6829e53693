from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from path_cases import batch_of, connect, make_case
from torch import Tensor, nn

from distill import distributed
from distill.paths import SRD, Path
from distill.paths.base import key

# Two values m - d and m + d standardise to -z and z with z = d / sqrt(d^2 + 1e-4); with 0.01 times a side of the
# triangle 3, 4, 5 that is rational: d = 0.0075 gives z = 0.0075 / 0.0125 = 0.6, d = 0.04 / 3 gives 0.8.
D_06, D_08 = 0.0075, 0.04 / 3


def two_samples(cls: type[Path], **options: Any) -> float:
    # Student: one channel of means 2 -+ D_06 over two places.  P = (1, D_08 / D_06) makes two: z = -+0.6 and -+0.8.
    # Teacher: 5 +- D_08 and -1 -+ D_06: z = +-0.8 and -+0.6.  Differences -+1.4 and -+0.2.
    path = connect(cls(**options), [(9, 4, 4), (1, 1, 2)], [(9, 4, 4), (2, 1, 1)]).double()
    path.projectors[key("s1")].weight.data = torch.tensor([[1.0], [D_08 / D_06]], dtype=torch.float64)
    means = torch.tensor([[-D_06], [D_06]], dtype=torch.float64)
    student = means + torch.tensor([[1.0, 3.0], [0.0, 4.0]])
    teacher = torch.tensor([[5 + D_08, -1 - D_06], [5 - D_08, -1 + D_06]], dtype=torch.float64)
    target = path.target({"t1": teacher[:, :, None, None]})
    return path({"s1": student[:, None, None]}, target, batch_of(2))["s1"].item()


def golden_fourth_power(cls: type[Path]) -> None:
    # 1.4^4 = 3.8416, 0.2^4 = 0.0016; both samples: 7.6864.
    assert two_samples(cls) == pytest.approx(math.log(7.6864 + 1e-5), rel=1e-9)


def golden_square(cls: type[Path]) -> None:
    # 1.96 + 0.04 = 2, both samples: 4.
    assert two_samples(cls, alpha=2.0) == pytest.approx(math.log(4 + 1e-5), rel=1e-9)


def golden_odd_exponent(cls: type[Path]) -> None:
    # The differences of both samples have opposite signs: without absolute values they would cancel.
    # 1.4^3 = 2.744, 0.2^3 = 0.008: 2.752, both samples 5.504.
    assert two_samples(cls, alpha=3.0) == pytest.approx(math.log(5.504 + 1e-5), rel=1e-9)


def golden_agreement(cls: type[Path]) -> None:
    # Student and teacher equal: log(1e-5), and no slope.
    path = connect(cls(), [(1, 1, 1)], [(1, 1, 1)]).double()
    path.projectors[key("s0")].weight.data.fill_(1)
    features = torch.tensor([1.0, 4.0, -2.0]).double().reshape(3, 1, 1, 1).requires_grad_()
    loss = path({"s0": features}, path.target({"t0": features}), batch_of(3))["s0"]
    assert loss.item() == pytest.approx(math.log(1e-5), rel=1e-9)
    loss.backward()
    assert features.grad is not None
    assert torch.equal(features.grad, torch.zeros_like(features))


GOLDENS = {"SRD": (golden_fourth_power, golden_square, golden_odd_exponent, golden_agreement)}


def reference(path: Path, student: dict[str, Tensor], teacher: dict[str, Tensor]) -> dict[str, float]:
    """Channel by channel: standardise both columns, and add up the powers of their differences."""
    (pair,) = path.pairs
    weight = path.projectors[key(pair.layer)].weight.double().tolist()
    own, wanted = (
        [[sum(sum(row) for row in channel) / (len(channel) * len(channel[0])) for channel in maps] for maps in side]
        for side in (student[pair.student].double().tolist(), teacher[pair.teacher].double().tolist())
    )
    total = 0.0
    for channel, line in enumerate(weight):
        one = _standardized([sum(w * x for w, x in zip(line, sample, strict=True)) for sample in own])
        other = _standardized([sample[channel] for sample in wanted])
        total += sum(abs(a - b) ** 4 for a, b in zip(one, other, strict=True))
    return {pair.layer: math.log(1e-5 + total)}


def _standardized(values: list[float]) -> list[float]:
    mean = sum(values) / len(values)
    variance = sum((value - mean) ** 2 for value in values) / len(values)
    return [(value - mean) / math.sqrt(variance + 1e-4) for value in values]


def test_agrees_with_batchnorm_of_torch() -> None:
    case = make_case("SRD", batch_size=7)
    norms = [nn.BatchNorm1d(6, eps=1e-4, affine=False).double() for _ in range(2)]
    student, teacher = case.student["s1"].mean((2, 3)), case.teacher["t1"].mean((2, 3))
    difference = norms[0](case.path.projectors[key("s1")](student)) - norms[1](teacher)
    torch.testing.assert_close(case.loss(), (difference.abs() ** 4).sum().add(1e-5).log())


def test_scale_and_shift_of_a_channel_of_the_teacher_are_forgiven() -> None:
    # All but for the 1e-4 beside the variance.
    case = make_case("SRD", batch_size=5)
    case.student, case.teacher = (
        {tap: 100 * value for tap, value in side.items()} for side in (case.student, case.teacher)
    )
    before = case.loss().item()
    case.teacher["t1"] = 7 * case.teacher["t1"] + torch.arange(6).reshape(6, 1, 1)
    assert case.loss().item() == pytest.approx(before, abs=1e-5)


def test_a_batch_of_one_has_a_value_and_no_slope() -> None:
    case = make_case("SRD", batch_size=1)
    case.student["s1"].requires_grad_()
    loss = case.loss()
    loss.backward()
    assert loss.item() == pytest.approx(math.log(1e-5))
    assert case.student["s1"].grad.abs().sum() == 0


def test_both_sides_are_gathered_before_they_are_standardised(monkeypatch: pytest.MonkeyPatch) -> None:
    # Another worker with the samples of this one, moved: the loss is that of the batch of both.
    case = make_case("SRD", batch_size=4)
    others = [case.path.projectors[key("s1")](case.student["s1"][2:].mean((2, 3))), case.target()["s1"][2:]]
    whole = case.loss()
    monkeypatch.setattr(distributed, "gather_rows", lambda rows: torch.cat([rows, others.pop(0)]))
    first = [{tap: value[:2] for tap, value in side.items()} for side in (case.student, case.teacher)]
    case.path.gather = True
    together = case.path(first[0], case.path.target(first[1]), batch_of(2))["s1"]
    torch.testing.assert_close(together, whole)
    assert not others


@pytest.mark.parametrize("alpha", [0.5, math.inf, math.nan, "4"])
def test_exponents_out_of_bounds_are_refused(alpha: Any) -> None:
    with pytest.raises(ValueError, match="alpha must be a finite number of at least 1, found"):
        SRD(alpha=alpha)


MUTANTS = {
    "SRD": [
        ("VARIANCE_EPSILON = 1e-4", "VARIANCE_EPSILON = 1e-5"),
        ("DISTANCE_EPSILON = 1e-5", "DISTANCE_EPSILON = 1e-6"),
        ("alpha: float = 4.0", "alpha: float = 2.0"),
        ("difference.abs().pow", "difference.pow"),
        ("self.alpha).sum())", "self.alpha).mean())"),
        ("self.alpha).sum())", "self.alpha).sum(dim=1).mean())"),
        ("- _standardized(self.together(target))", "+ _standardized(self.together(target))"),
        ("- _standardized(self.together(target))", "- self.together(target)"),
        ("rows - rows.mean(dim=0)", "rows"),
        ("rows - rows.mean(dim=0)", "rows - rows.mean(dim=1, keepdim=True)"),
        ("centred.square().mean(dim=0)", "centred.square().sum(dim=0) / (len(rows) - 1)"),
        ("centred * torch.rsqrt(", "centred / torch.rsqrt("),
        ("torch.log(DISTANCE_EPSILON", "(DISTANCE_EPSILON"),
        ("pooled(student))", "student.amax(dim=(2, 3)))"),
    ],
}
"""Changes of the source that a golden value notices; see test_mutants."""
