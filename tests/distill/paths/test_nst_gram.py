from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from naive_maps import naive_adapter
from path_cases import Largest, batch_of, connect, identity_adapters, make_case
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from distill.paths import NSTGram, Path
from distill.paths.base import key
from distill.paths.nst_gram import _unit_rows


def golden_gram_of_two_channels(cls: type[Path]) -> None:
    # Two channels, two positions: the [channel, channel] form.
    # First sample.  Student rows (3, 4) -> (.6, .8) and (-2, 0) -> (-1, 0): cosine -.6.  Teacher rows (1, 0) and
    # (0, 2): cosine 0.  The difference is [[0, -.6], [-.6, 0]]; squares .72 in all, mean over 4 pairs .18.
    # Second sample: student and teacher equal, 0.  Mean over the batch: .09.
    student = torch.tensor([[[[3.0, 4.0]], [[-2.0, 0.0]]], [[[1.0, 1.0]], [[5.0, -1.0]]]])
    teacher = torch.tensor([[[[1.0, 0.0]], [[0.0, 2.0]]], [[[1.0, 1.0]], [[5.0, -1.0]]]])
    path = identity_adapters(connect(cls(), [(2, 1, 2)], [(2, 1, 2)]))
    target = path.target({"t0": teacher})
    torch.testing.assert_close(target["s0"][0], torch.eye(2))
    loss = path({"s0": student}, target, batch_of(2))["s0"]
    torch.testing.assert_close(loss, torch.tensor(0.09))


def golden_gram_of_more_channels_than_positions(cls: type[Path]) -> None:
    # Three channels, two positions: the [position, position] form.
    # Student rows (.6, .8), (1, 0), (0, 1): cosines .6, .8, 0.  Teacher rows (1, 0), (0, 1), (0, 1): cosines 0, 0, 1.
    # Squared differences .36, .64, 1, each twice: 4; mean over 9 pairs: 4/9.  A second, equal sample: mean 2/9.
    student = torch.tensor([[[[3.0, 4.0]], [[1.0, 0.0]], [[0.0, 1.0]]], [[[1.0, 2.0]], [[0.0, 3.0]], [[-1.0, 1.0]]]])
    teacher = torch.tensor([[[[1.0, 0.0]], [[0.0, 2.0]], [[0.0, 5.0]]], [[[1.0, 2.0]], [[0.0, 3.0]], [[-1.0, 1.0]]]])
    path = identity_adapters(connect(cls(), [(3, 1, 2)], [(3, 1, 2)]))
    target = path.target({"t0": teacher})
    torch.testing.assert_close(target["s0"][0], torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.0, 1.0]]))
    loss = path({"s0": student}, target, batch_of(2))["s0"]
    torch.testing.assert_close(loss, torch.tensor(2 / 9))


def golden_adapter_is_used(cls: type[Path]) -> None:
    # The student's rows (1, 0) and (0, 1), mixed to (1, 1) and (0, 1): cosine 1/sqrt2.  Teacher 0.
    # Two of four pairs differ, each by 1/2 squared: mean 1/4.
    path = identity_adapters(connect(cls(), [(2, 1, 2)], [(2, 1, 2)]))
    for weight in path.parameters():
        if weight.dim() == 4:
            weight.data[0, 1] = 1
    features = torch.eye(2).reshape(1, 2, 1, 2)
    loss = path({"s0": features}, path.target({"t0": features}), batch_of(1))["s0"]
    torch.testing.assert_close(loss, torch.tensor(0.25))


def golden_adapter_is_used_in_the_position_form(cls: type[Path]) -> None:
    # The student's rows (1, 0), (0, 1), (0, 1), the first mixed with the second to (1, 1): cosine 1/sqrt2 to both
    # others, in the teacher 0.  Four of nine pairs differ, each by 1/2 squared: mean 2/9.
    path = identity_adapters(connect(cls(), [(3, 1, 2)], [(3, 1, 2)]))
    for weight in path.parameters():
        if weight.dim() == 4:
            weight.data[0, 1] = 1
    features = torch.tensor([[[[1.0, 0.0]], [[0.0, 1.0]], [[0.0, 1.0]]]])
    loss = path({"s0": features}, path.target({"t0": features}), batch_of(1))["s0"]
    torch.testing.assert_close(loss, torch.tensor(2 / 9))


def golden_silent_channel(cls: type[Path]) -> None:
    # A row of length 5e-7 is divided by 1e-6 and gets length .5: its cosine with itself counts as .25, so
    # (.25 - 1)^2 = 9/16 in one of four pairs.  With (0, 1) it has cosine .4, with the teacher's (.6, .8): .8.
    # .4 against .8: .16, twice.  Sum 9/16 + .32, mean over 4 pairs: .220625.
    student = torch.tensor([[[[3e-7, 4e-7]], [[0.0, 1.0]]]], dtype=torch.float64)
    teacher = torch.tensor([[[[3.0, 4.0]], [[0.0, 1.0]]]], dtype=torch.float64)
    path = identity_adapters(connect(cls(), [(2, 1, 2)], [(2, 1, 2)])).double()
    loss = path({"s0": student}, path.target({"t0": teacher}), batch_of(1))["s0"]
    torch.testing.assert_close(loss, torch.tensor(0.220625, dtype=torch.float64))


def golden_rounding_below_zero(cls: type[Path]) -> None:
    # Equal features: the three terms of the [position, position] form cancel, and what rounding leaves over must not
    # become negative for any sample, or a logarithm of it would not exist.
    features = torch.randn(1, 64, 2, 2, generator=torch.Generator().manual_seed(0))
    path = identity_adapters(connect(cls(), [(64, 2, 2)], [(64, 2, 2)]))
    for turn in range(50):
        nearly = features + 1e-5 * turn * features.roll(turn, dims=1)
        loss = path({"s0": nearly}, path.target({"t0": features}), batch_of(1))["s0"]
        assert 0 <= loss.item() < 1e-6


def golden_slope_of_the_position_form(cls: type[Path]) -> None:
    # The gradient along a direction is the difference of the loss at both sides, in either memory layout.
    generator = torch.Generator().manual_seed(0)
    student, teacher, direction = (torch.randn(2, 8, 2, 3, generator=generator).double() for _ in range(3))
    path = identity_adapters(connect(cls(), [(8, 2, 3)], [(8, 2, 3)])).double()
    target = path.target({"t0": teacher})
    ahead, behind = (
        path({"s0": student + step * direction}, target, batch_of(2))["s0"].item() for step in (1e-5, -1e-5)
    )
    for layout in (torch.contiguous_format, torch.channels_last):
        features = student.contiguous(memory_format=layout).requires_grad_()
        (slope,) = torch.autograd.grad(path({"s0": features}, target, batch_of(2))["s0"], [features])
        assert (slope * direction).sum().item() == pytest.approx((ahead - behind) / 2e-5, rel=1e-6)


GOLDENS = {
    "NSTGram": (
        golden_gram_of_two_channels,
        golden_gram_of_more_channels_than_positions,
        golden_adapter_is_used,
        golden_adapter_is_used_in_the_position_form,
        golden_silent_channel,
        golden_rounding_below_zero,
        golden_slope_of_the_position_form,
    )
}


def reference(path: Path, student: dict[str, Tensor], teacher: dict[str, Tensor]) -> dict[str, float]:
    """Pair by pair of channels: the cosine in the student, the cosine in the teacher, their squared difference."""
    losses = {}
    for pair in path.pairs:
        adapted = naive_adapter(path.adapters[key(pair.layer)], student[pair.student])
        squares = []
        for one, other in zip(adapted, teacher[pair.teacher].tolist(), strict=True):
            for i in range(len(other)):
                for j in range(len(other)):
                    squares.append((_cosine(one[i], one[j]) - _cosine(other[i], other[j])) ** 2)
        losses[pair.layer] = sum(squares) / len(squares)
    return losses


def _cosine(first: list[list[float]], second: list[list[float]]) -> float:
    a, b = [x for row in first for x in row], [x for row in second for x in row]
    lengths = [max(math.sqrt(sum(x * x for x in values)), 1e-6) for values in (a, b)]
    return sum(x * y for x, y in zip(a, b, strict=True)) / (lengths[0] * lengths[1])


@pytest.mark.parametrize("student_size", [(2, 3), (4, 4)], ids=["equal positions", "more positions in the student"])
def test_position_form_agrees_with_channel_form(student_size: tuple[int, int]) -> None:
    case = make_case("NSTGram", student=[(5, *student_size)], teacher=[(32, 2, 3)], batch_size=4)
    assert case.target()["s0"].shape == (4, 32, 6)
    rows = [
        torch.nn.functional.normalize(maps.flatten(2), dim=2)
        for maps in (case.path.adapt("s0", case.student["s0"]), case.teacher["t0"])
    ]
    primal = (rows[0] @ rows[0].mT - rows[1] @ rows[1].mT).square().mean()
    (wanted,) = torch.autograd.grad(primal, [case.path.adapters[key("s0")].convolution.weight])
    loss = case.losses()["s0"]
    (found,) = torch.autograd.grad(loss, [case.path.adapters[key("s0")].convolution.weight])
    torch.testing.assert_close(loss, primal, rtol=1e-12, atol=1e-14)
    torch.testing.assert_close(found, wanted, rtol=1e-9, atol=1e-12)


def test_position_form_in_float32_is_close_to_float64() -> None:
    shapes = {"student": [(16, 4, 4)], "teacher": [(256, 4, 4)], "batch_size": 2}
    exact = make_case("NSTGram", **shapes).losses()["s0"]
    single = make_case("NSTGram", **shapes, dtype=torch.float32).losses()["s0"]
    assert single.item() == pytest.approx(exact.item(), abs=3e-7)


def test_form_is_chosen_layer_by_layer_from_the_teacher_alone() -> None:
    case = make_case("NSTGram", student=((64, 3, 3), (64, 2, 2)), teacher=((9, 3, 3), (5, 2, 2)))
    assert [tuple(value.shape) for value in case.target().values()] == [(3, 9, 9), (3, 5, 4)]


def test_position_form_never_holds_a_channel_by_channel_matrix() -> None:
    case = make_case("NSTGram", student=[(4, 2, 2)], teacher=[(64, 2, 2)], batch_size=2, dtype=torch.float32)
    with Largest() as largest:
        case.losses()["s0"].backward()
    assert largest.numel == 2 * 64 * 4


def test_position_form_is_a_tenth_of_the_work_where_channels_abound() -> None:
    # The deepest stage of a ResNet-50 that teaches a ResNet-18 on 32x32 images.
    path = connect(NSTGram(), [(512, 4, 4)], [(2048, 4, 4)])
    student, teacher = torch.randn(2, 512, 4, 4, requires_grad=True), torch.randn(2, 2048, 4, 4)

    def ours() -> Tensor:
        return path({"s0": student}, path.target({"t0": teacher}), batch_of(2))["s0"]

    def plain() -> Tensor:
        grams = [rows @ rows.mT for rows in map(_unit_rows, (path.adapt("s0", student), teacher))]
        return F.mse_loss(*grams)

    adapter = _flops(lambda: path.adapt("s0", student).sum())
    assert _flops(ours) - adapter < 0.1 * (_flops(plain) - adapter)


def _flops(run: Callable[[], Tensor]) -> int:
    with FlopCounterMode(display=False) as counter:
        run().backward()
    return counter.get_total_flops()


def test_order_of_channels_counts() -> None:
    # What tells it from the polynomial-kernel loss of arXiv:1707.01219, for which this would be 0.
    features = torch.randn(2, 3, 4, 4)
    path = identity_adapters(connect(NSTGram(), [(3, 4, 4)], [(3, 4, 4)]))
    target = path.target({"t0": features})
    assert path({"s0": features[:, [1, 2, 0]]}, target, batch_of(2))["s0"] > 1e-3
    assert path({"s0": 7 * features}, target, batch_of(2))["s0"].item() == pytest.approx(0, abs=1e-10)


BASE = "distill.paths.gram"

MUTANTS = {
    "NSTGram": [
        ("dim=2, eps=EPSILON", "dim=1, eps=EPSILON"),
        ("dim=2, eps=EPSILON", "dim=2, p=1, eps=EPSILON"),
        ("F.normalize(features.flatten(2), dim=2, eps=EPSILON)", "features.flatten(2)"),
        ("EPSILON = 1e-6", "EPSILON = 1e-12"),
        ("F.mse_loss(", "F.l1_loss("),
        ("gram(student)), target)", "gram(student)), target, reduction='sum')"),
        ("gram(student)), target)", "gram(student)), -target)"),
        ("_cosines(self.adapter(layer).gram(student))", "self.adapter(layer).gram(student)"),
        ("_cosines(self.adapter(layer).gram(student))", "_cosines(student.flatten(2) @ student.flatten(2).mT)"),
        ("clamp_min(EPSILON**2)", "clamp_min(EPSILON)"),
        ("(lengths[:, :, None] * lengths[:, None])", "lengths[:, :, None] ** 2"),
        ("_energy(own) + _energy", "_energy(own) - _energy", BASE),
        ("- 2 * _energy(cross)", "+ 2 * _energy(cross)", BASE),
        ("- 2 * _energy(cross)", "- _energy(cross)", BASE),
        ("4 * gradients[0]", "2 * gradients[0]", BASE),
        ("target.mT, alpha=-1).mT", "target.mT, alpha=1).mT", BASE),
        ("torch.baddbmm(own @ rows.mT, cross,", "torch.baddbmm(own @ rows.mT, cross.mT,", BASE),
        ("target, cross.mT, alpha=-1)", "target, cross.mT, alpha=1)", BASE),
        ("target, cross.mT, alpha=-1)", "target, cross, alpha=-1)", BASE),
        ("rows.shape[1] ** 2", "rows.shape[1]"),
        ("rows.shape[1] ** 2", "rows.shape[2] ** 2"),
        (".clamp_min(0).mean()", ".mean()"),
        (".clamp_min(0).mean()", ".clamp_min(0).sum()"),
        (".square().sum(dim=(1, 2))", ".abs().sum(dim=(1, 2))", BASE),
        (".square().sum(dim=(1, 2))", ".square().mean(dim=(1, 2))", BASE),
        ("tap.channels > self", "tap.channels < self", BASE),
        ("self.adapt(layer, student)", "student"),
    ],
}
"""Changes of the source that a golden value notices; see test_mutants."""
