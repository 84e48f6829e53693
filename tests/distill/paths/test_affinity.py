from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from naive_maps import naive_convolution, naive_pooled_alike
from path_cases import Largest, batch_of, connect, make_case
from torch import Tensor, nn

from distill.paths import Affinity, Path, affinities
from distill.paths.base import key


def made_plain(path: Path) -> Path:
    """Let the adapter pass the channels that there are on both sides."""
    for module in path.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.dirac_(module.weight)
    return path.double()


def loss_of(path: Path, student: Any, teacher: Any) -> Tensor:
    """Return the loss between maps `[batch][channel][row][column]`."""
    one, other = (torch.as_tensor(maps, dtype=torch.float64) for maps in (student, teacher))
    loss: Tensor = path({"s0": one}, path.target({"t0": other}), batch_of(len(one)))["s0"]
    return loss


def golden_two_positions(cls: type[Path]) -> None:
    # Student (1, 0) and (0, 2): cosine 0; teacher (3, 4) and (6, 8): cosine 1.  Of four pairs two differ, by 1: 1/2.
    # A second sample with opposite positions on both sides costs nothing: the mean over the batch is 1/4.
    student = [[[[1.0, 0.0]], [[0.0, 2.0]]], [[[1.0, -3.0]], [[0.0, 0.0]]]]
    teacher = [[[[3.0, 6.0]], [[4.0, 8.0]]], [[[0.0, 0.0]], [[-5.0, 1.0]]]]
    path = made_plain(connect(cls(), [(2, 1, 2)], [(2, 1, 2)]))
    assert loss_of(path, student, teacher).item() == pytest.approx(0.25)


def golden_few_channels(cls: type[Path]) -> None:
    # One channel of six positions in a plane: the cosines are signs.  Student + + + + + -, teacher all +: 10 of 36
    # pairs differ by 2: 40 / 36; a second sample alike on both sides halves it.
    same = [[[1.0, 2.0, 1.0], [3.0, 4.0, 7.0]]]
    student = [[[[1.0, 2.0, 3.0], [0.5, 4.0, -2.0]]], same]
    teacher = [[[[3.0, 1.0, 1.0], [2.0, 5.0, 1.0]]], same]
    path = made_plain(connect(cls(), [(1, 2, 3)], [(1, 2, 3)]))
    assert loss_of(path, student, teacher).item() == pytest.approx(5 / 9)
    assert loss_of(path, teacher, student).item() == pytest.approx(5 / 9)


def golden_adapter(cls: type[Path]) -> None:
    # One channel 1, 2 becomes (1, 0), (2, 0) by the convolution: cosine 1; the teacher's (3, 4), (-4, 3): 0.  1/2.
    path = made_plain(connect(cls(), [(1, 1, 2)], [(2, 1, 2)]))
    teacher = [[[[3.0, -4.0]], [[4.0, 3.0]]]]
    assert loss_of(path, [[[[1.0, 2.0]]]], teacher).item() == pytest.approx(0.5)
    # Where widths agree there is one as well: (1, 1), (1, -1), their second channel taken away: cosine 1.
    path = made_plain(connect(cls(), [(2, 1, 2)], [(2, 1, 2)]))
    path.adapters[key("s0")].weight.data[1] = 0
    assert loss_of(path, [[[[1.0, 1.0]], [[1.0, -1.0]]]], teacher).item() == pytest.approx(0.5)


def golden_short_positions(cls: type[Path]) -> None:
    # A position of length 5e-7 is divided by 1e-6: (.3, .4), with itself .25 instead of 1, with (.6, .8): .5.
    # Teacher: all cosines 1.  Squares .75^2, .5^2 twice, 0 over four pairs.
    path = made_plain(connect(cls(), [(2, 1, 2)], [(2, 1, 2)]))
    student = [[[[3e-7, 3.0]], [[4e-7, 4.0]]]]
    teacher = [[[[1.0, 1.0]], [[1.0, 1.0]]]]
    assert loss_of(path, student, teacher).item() == pytest.approx((0.75**2 + 2 * 0.5**2) / 4)


def golden_larger_map_is_pooled(cls: type[Path]) -> None:
    # The teacher's rows averaged: (1, 0) and (0, 1): cosine 0; the student's 1.  (By maximum: (2, 0), (1, 1).)
    path = made_plain(connect(cls(), [(2, 1, 2)], [(2, 2, 2)]))
    teacher = [[[[0.0, 1.0], [2.0, -1.0]], [[0.0, 1.0], [0.0, 1.0]]]]
    assert loss_of(path, [[[[1.0, 2.0]], [[1.0, 2.0]]]], teacher).item() == pytest.approx(0.5)


def golden_last_map_alone(cls: type[Path]) -> None:
    path = connect(cls(), [(3, 4, 4), (5, 2, 2)], [(4, 4, 4), (6, 2, 2)])
    assert path.layers == ("s1",)
    assert path.adapters[key("s1")].weight.shape == (6, 5, 1, 1)
    assert [name for name, _ in path.named_parameters()] == ["adapters.tap/s1.weight"]


def golden_rounding_below_zero(cls: type[Path]) -> None:
    path = made_plain(connect(cls(), [(2, 5, 5)], [(2, 5, 5)])).float()
    for seed in range(50):
        maps = torch.randn(1, 2, 5, 5, generator=torch.Generator().manual_seed(seed))
        assert 0 <= path({"s0": 3 * maps}, path.target({"t0": maps}), batch_of(1))["s0"].item() < 1e-6


GOLDENS = {
    "Affinity": (
        golden_two_positions,
        golden_few_channels,
        golden_adapter,
        golden_short_positions,
        golden_larger_map_is_pooled,
        golden_last_map_alone,
        golden_rounding_below_zero,
    )
}


def reference(path: Path, student: dict[str, Tensor], teacher: dict[str, Tensor]) -> dict[str, float]:
    """Pair of positions by pair of positions."""
    losses = {}
    for pair in path.pairs:
        own, other = naive_pooled_alike(student[pair.student].double().tolist(), teacher[pair.teacher].tolist())
        adapted = naive_convolution(path.adapters[key(pair.layer)], own)
        squares = []
        for one, two in zip(adapted, other, strict=True):
            s, t = (unit_positions(sample) for sample in (one, two))
            for i in range(len(s)):
                squares += [(inner(s[i], s[j]) - inner(t[i], t[j])) ** 2 for j in range(len(s))]
        losses[pair.layer] = sum(squares) / len(squares)
    return losses


def unit_positions(sample: list[list[list[float]]]) -> list[list[float]]:
    """Return the channels of each position, divided by their length."""
    found = []
    for y in range(len(sample[0])):
        for x in range(len(sample[0][0])):
            values = [plane[y][x] for plane in sample]
            length = max(math.sqrt(inner(values, values)), 1e-6)
            found.append([value / length for value in values])
    return found


def inner(one: list[float], other: list[float]) -> float:
    return sum(a * b for a, b in zip(one, other, strict=True))


@pytest.mark.parametrize("few", [True, False])
def test_both_ways_to_the_distance_agree(few: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    case = make_case("Affinity", student=[(5, 3, 4)], teacher=[(4, 3, 4)])
    wanted = reference(case.path, case.student, case.teacher)["s0"]
    monkeypatch.setattr(affinities, "columns_are_few", lambda *_: few)
    assert case.loss().item() == pytest.approx(wanted, rel=1e-9)


def test_a_large_map_makes_no_matrix_of_positions() -> None:
    case = make_case("Affinity", student=[(3, 32, 32)], teacher=[(4, 32, 32)], batch_size=1)
    with Largest() as largest:
        case.loss().backward()
    assert largest.numel < 32**4 // 16


def test_scale_does_not_count() -> None:
    case = make_case("Affinity")
    before = case.loss().item()
    case.student["s1"] = 7 * case.student["s1"]
    assert case.loss().item() == pytest.approx(before, rel=1e-9)


def test_a_student_like_the_teacher_costs_nothing() -> None:
    case = make_case("Affinity", student=[(6, 3, 3)], teacher=[(6, 3, 3)])
    made_plain(case.path)
    case.student["s0"] = case.teacher["t0"]
    assert case.loss().item() == pytest.approx(0, abs=1e-14)


def test_target_is_the_map_that_others_store_too() -> None:
    case = make_case("Affinity")
    assert torch.equal(case.target()["s1"], case.teacher["t1"])
    assert Affinity().target_identity() == make_case("MGD").path.target_identity()


MUTANTS = {
    "Affinity": [
        ("pooled_alike(student, target)", "pooled_alike(student, -target.abs())"),
        ("unit_positions(self.adapters[key(layer)](student))", "unit_positions(student.expand_as(target))"),
        ("unit_positions(self.adapters[key(layer)](student))", "self.adapters[key(layer)](student).flatten(2)"),
        (", unit_positions(target))", ", target.flatten(2))"),
        ("only_last = True", "only_last = False"),
        ("dim=1, eps", "dim=2, eps", "distill.paths.affinities"),
        ("EPSILON = 1e-6", "EPSILON = 1e-12", "distill.paths.affinities"),
        ("/ positions**2", "/ positions", "distill.paths.affinities"),
        (".clamp_min(0).mean()", ".clamp_min(0).sum()", "distill.paths.affinities"),
        (".clamp_min(0).mean()", ".mean()", "distill.paths.affinities"),
        ("F.mse_loss(cosines(student), cosines(teacher))", "F.l1_loss(cosines(student), cosines(teacher)) * 0.5",
         "distill.paths.affinities"),
        ("units.mT @ units", "units @ units.mT", "distill.paths.affinities"),
        ("F.adaptive_avg_pool2d", "F.adaptive_max_pool2d", "distill.paths.sizes"),
    ],
}  # fmt: skip
"""Changes of the source that a golden value notices; see test_mutants."""
