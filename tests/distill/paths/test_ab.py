from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from naive_maps import Maps, naive_adapter, naive_pool, positions
from path_cases import batch_of, connect, identity_adapters, make_case, make_probe
from torch import Tensor

from distill.paths import AB, Path
from distill.paths.base import key
from distill.taps import Tap, TapPair


def loss_of(path: Path, student: Any, teacher: Any) -> float:
    """Return the loss between maps `[batch][channel][row][column]`."""
    one, other = (torch.tensor(maps) for maps in (student, teacher))
    loss: float = path({"s0": one}, path.target({"t0": other}), batch_of(len(one)))["s0"].item()
    return loss


def golden_hinges(cls: type[Path]) -> None:
    # First sample.  The teacher's neurons: on (3), off (-1), off (0 is no response), on (.5).
    # .25 shall be above 1: .75^2.  .5 shall be below -1: 1.5^2.  -2 is.  1 is.  2.8125 of 4 values: .703125.
    # Second sample: all on the right side, nothing.  Mean .3515625.
    path = identity_adapters(connect(cls(), [(2, 1, 2)], [(2, 1, 2)]))
    teacher = [[[[3.0, -1.0]], [[0.0, 0.5]]]] * 2
    student = [[[[0.25, 0.5]], [[-2.0, 1.0]]], [[[5.0, -5.0]], [[-5.0, 5.0]]]]
    assert loss_of(path, student, teacher) == pytest.approx(0.3515625)


def golden_margin(cls: type[Path]) -> None:
    # A margin of 2 around the teacher's on: (2 - .5)^2 = 2.25; off: (2 + .5)^2 = 6.25.  Mean 4.25.
    path = identity_adapters(connect(cls(margin=2.0), [(1, 1, 2)], [(1, 1, 2)]))
    assert loss_of(path, [[[[0.5, 0.5]]]], [[[[1.0, -1.0]]]]) == pytest.approx(4.25)


def golden_eight_neurons_a_byte(cls: type[Path]) -> None:
    # Ten channels, two places.  First place: channels 0, 7 and 8 respond: 1 + 128, and 1.  Second: 1 and 9: 2, and 2.
    teacher = torch.full((1, 10, 1, 2), -1.0)
    for channel, place in ((0, 0), (7, 0), (8, 0), (1, 1), (9, 1)):
        teacher[0, channel, 0, place] = 0.1
    path = identity_adapters(connect(cls(), [(10, 1, 2)], [(10, 1, 2)]))
    target = path.target({"t0": teacher})["s0"]
    assert target.dtype == torch.uint8
    assert target.tolist() == [[[[129, 2]], [[1, 2]]]]
    # A student of +2 and -2 on the right sides pays nothing; with one neuron at -2 instead of +2: 3^2 of 20 values.
    student = torch.where(teacher > 0, 2.0, -2.0)
    assert path({"s0": student}, {"s0": target}, batch_of(1))["s0"].item() == 0
    student[0, 8, 0, 0] = -2
    assert path({"s0": student}, {"s0": target}, batch_of(1))["s0"].item() == pytest.approx(9 / 20)


def golden_student_is_brought_to_the_teachers_size(cls: type[Path]) -> None:
    # Columns of (-1, 1) and (2, 4) averaged: 0 and 3.  The teacher is on and off: (1 - 0)^2 and (1 + 3)^2, mean 8.5.
    path = identity_adapters(connect(cls(), [(1, 2, 2)], [(1, 1, 2)]))
    assert loss_of(path, [[[[-1.0, 2.0], [1.0, 4.0]]]], [[[[1.0, -1.0]]]]) == pytest.approx(8.5)
    # A student of one place stands for both of the teacher's: (1 - .5)^2 and (1 + .5)^2, mean 1.25.
    path = identity_adapters(connect(cls(), [(1, 1, 1)], [(1, 1, 2)]))
    assert loss_of(path, [[[[0.5]]]], [[[[1.0, -1.0]]]]) == pytest.approx(1.25)


def golden_adapter_is_used(cls: type[Path]) -> None:
    # An adapter that doubles: 2 * .25 = .5: (1 - .5)^2.
    path = identity_adapters(connect(cls(), [(1, 1, 1)], [(1, 1, 1)]))
    path.adapters[key("s0")].convolution.weight.data.mul_(2)
    assert loss_of(path, [[[[0.25]]]], [[[[1.0]]]]) == pytest.approx(0.25)


def golden_reads_before_the_activation(cls: type[Path]) -> None:
    path = cls()
    path.connect(probe_with_relu("s"), probe_with_relu("t"))
    assert path.pairs == (TapPair("s0.relu:input", "t0.relu:input", "s0"),)


def probe_with_relu(prefix: str) -> Any:
    """Return what a probe says of a model whose one stage ends in a ReLU."""
    before = Tap(f"{prefix}0.relu:input", 2, 3, 3, 1.0, "nchw", entering=0)
    return replace(make_probe(prefix, [(2, 3, 3)]), unactivated={f"{prefix}0": before})


GOLDENS = {
    "AB": (
        golden_hinges,
        golden_margin,
        golden_eight_neurons_a_byte,
        golden_student_is_brought_to_the_teachers_size,
        golden_adapter_is_used,
        golden_reads_before_the_activation,
    )
}


def reference(path: Path, student: dict[str, Tensor], teacher: dict[str, Tensor]) -> dict[str, float]:
    """Neuron by neuron: the two cases of the paper's alternative loss."""
    losses = {}
    for pair in path.pairs:
        other: Maps = teacher[pair.teacher].double().tolist()
        own = naive_adapter(path.adapters[key(pair.layer)], student[pair.student])
        own = naive_pool(own, len(other[0][0]), len(other[0][0][0]))
        total, count = 0.0, 0
        for b, c, y, x in positions(other):
            value = own[b][c][y][x]
            if other[b][c][y][x] <= 0 and value > -path.margin:
                total += (value + path.margin) ** 2
            if other[b][c][y][x] > 0 and value <= path.margin:
                total += (value - path.margin) ** 2
            count += 1
        losses[pair.layer] = total / count
    return losses


@pytest.mark.parametrize("channels", [1, 7, 8, 9, 64])
def test_target_holds_every_sign_in_an_eighth_of_the_bytes(channels: int) -> None:
    case = make_case("AB", student=[(3, 4, 5)], teacher=[(channels, 4, 5)])
    target = case.target()["s0"]
    assert target.shape == (3, -(-channels // 8), 4, 5)
    bits = [(target[:, channel // 8].int() >> channel % 8) & 1 for channel in range(channels)]
    assert torch.equal(torch.stack(bits, dim=1).bool(), case.teacher["t0"] > 0)


def test_how_strongly_the_teacher_responds_does_not_count() -> None:
    case = make_case("AB")
    before = case.loss()
    case.teacher = {tap: value * value.abs().exp() for tap, value in case.teacher.items()}
    assert torch.equal(case.loss(), before)
    case.teacher = {tap: value.clamp_min(0) for tap, value in case.teacher.items()}  # as after a ReLU
    assert torch.equal(case.loss(), before)


def test_only_a_student_beyond_the_margin_costs_nothing() -> None:
    teacher = torch.randn(2, 3, 4, 4)
    path = identity_adapters(connect(AB(), [(3, 4, 4)], [(3, 4, 4)]))
    target = path.target({"t0": teacher})
    assert path({"s0": teacher.sign() * 1.5}, target, batch_of(2))["s0"].item() == 0
    assert path({"s0": teacher.sign() * 0.5}, target, batch_of(2))["s0"].item() == pytest.approx(0.25)
    assert path({"s0": -teacher.sign()}, target, batch_of(2))["s0"].item() == pytest.approx(4)


def test_taps_that_end_in_no_activation_are_read_as_they_are() -> None:
    assert [pair.student for pair in make_case("AB").path.pairs] == ["s0", "s1"]


@pytest.mark.parametrize("margin", [0.0, -1.0, float("inf"), float("nan"), "1"])
def test_margin_must_be_above_zero(margin: Any) -> None:
    with pytest.raises(ValueError, match="margin must be a finite number above 0, found"):
        AB(margin=margin)


MUTANTS = {
    "AB": [
        ("teacher > 0", "teacher >= 0"),
        ("teacher > 0", "teacher < 0"),
        ("torch.where(responds, adapted, -adapted)", "torch.where(responds, -adapted, adapted)"),
        ("torch.where(responds, adapted, -adapted)", "adapted"),
        ("F.relu(self.margin - torch", "(self.margin - torch"),
        ("F.relu(self.margin - torch", "F.relu(self.margin + torch"),
        ("F.relu(self.margin - torch", "F.relu(1.0 - torch"),
        (".square().mean()", ".mean()"),
        (".square().mean()", ".square().sum()"),
        (".square().mean()", ".square().sum(dim=(1, 2, 3)).mean()"),
        ("margin: float = 1.0", "margin: float = 0.5"),
        ("BITS = 8", "BITS = 4"),
        ("bits << _places(flags)", "bits << _places(flags).flip(0)"),
        ("self.adapt(layer, student)", "student"),
        ("before_activation = True", "before_activation = False"),
        ("F.adaptive_avg_pool2d", "F.adaptive_max_pool2d", "distill.paths.sizes"),
    ],
}
"""Changes of the source that a golden value notices; see test_mutants."""
