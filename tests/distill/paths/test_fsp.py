from __future__ import annotations

import pytest
import torch
from naive_maps import naive_adapter
from path_cases import batch_of, connect, identity_adapters, make_case
from torch import Tensor

from distill.paths import FSP, Path
from distill.paths.base import key


def loss_between(path: Path, student: list[Tensor], teacher: list[Tensor]) -> dict[str, Tensor]:
    """Return the losses of a connected path between the maps of consecutive stages."""
    target = path.eval().target({f"t{number}": maps for number, maps in enumerate(teacher)})
    return path({f"s{number}": maps for number, maps in enumerate(student)}, target, batch_of(len(student[0])))


def golden_products_of_channels(cls: type[Path]) -> None:
    # First sample.  Student: rows (1, 2), (3, -1) and (2, 4): G = ((1*2 + 2*4)/2, (3*2 - 1*4)/2) = (5, 1).
    # Teacher: rows (1, 0), (0, 1) and (2, 2): G = (1, 1).  Differences (4, 0), mean square 8.
    # Second sample: equal, 0.  Mean over the batch: 4.
    student = [
        torch.tensor([[[[1.0, 2.0]], [[3.0, -1.0]]], [[[1.0, 1.0]], [[2.0, 2.0]]]]),
        torch.tensor([[[[2.0, 4.0]]], [[[1.0, 3.0]]]]),
    ]
    teacher = [
        torch.tensor([[[[1.0, 0.0]], [[0.0, 1.0]]], [[[1.0, 1.0]], [[2.0, 2.0]]]]),
        torch.tensor([[[[2.0, 2.0]]], [[[1.0, 3.0]]]]),
    ]
    path = connect(cls(), [(2, 1, 2), (1, 1, 2)], [(2, 1, 2), (1, 1, 2)])
    assert path.layers == ("s0-s1",)
    target = path.target({"t0": teacher[0], "t1": teacher[1]})["s0-s1"]
    torch.testing.assert_close(target, torch.tensor([[[1.0], [1.0]], [[2.0], [4.0]]]))
    torch.testing.assert_close(loss_between(path, student, teacher)["s0-s1"], torch.tensor(4.0))


def golden_pools_the_larger_map(cls: type[Path]) -> None:
    # [[1, 3], [5, 7]], columns averaged: (3, 5); with (2, 1): (6 + 5)/2 = 5.5.  (By maximum: (5, 7), 8.5.)
    # Teacher: (1, 1) and (1, 1): 1.  (5.5 - 1)^2 = 20.25, whichever of the two is the larger.
    large, small, ones = (
        torch.tensor([[[[1.0, 3.0], [5.0, 7.0]]]]),
        torch.tensor([[[[2.0, 1.0]]]]),
        torch.ones(1, 1, 1, 2),
    )
    for maps in ([large, small], [small, large]):
        path = connect(cls(), [tuple(each.shape[1:]) for each in maps], [(1, 1, 2), (1, 1, 2)])
        torch.testing.assert_close(loss_between(path, maps, [ones, ones])["s0-s1"], torch.tensor(20.25))


def golden_pools_height_and_width_alike(cls: type[Path]) -> None:
    # [[1, 5], [3, 7]], rows averaged: (3, 5), the same numbers, turned; the teacher's 1 from maps of another size.
    maps = [torch.tensor([[[[1.0, 5.0], [3.0, 7.0]]]]), torch.tensor([[[[2.0], [1.0]]]])]
    path = connect(cls(), [(1, 2, 2), (1, 2, 1)], [(1, 2, 3), (1, 1, 3)])
    loss = loss_between(path, maps, [torch.ones(1, 1, 2, 3), torch.ones(1, 1, 1, 3)])["s0-s1"]
    torch.testing.assert_close(loss, torch.tensor(20.25))


def golden_windows_that_overlap(cls: type[Path]) -> None:
    # (1, 2, 10) in two windows: (1.5, 6); with (2, 1): (3 + 6)/2 = 4.5.  Against 1: 3.5^2.
    # (The smaller map enlarged to (2, 1.5, 1) would give 5.)
    maps = [torch.tensor([[[[1.0, 2.0, 10.0]]]]), torch.tensor([[[[2.0, 1.0]]]])]
    path = connect(cls(), [(1, 1, 3), (1, 1, 2)], [(1, 1, 1), (1, 1, 1)])
    loss = loss_between(path, maps, [torch.ones(1, 1, 1, 1)] * 2)["s0-s1"]
    torch.testing.assert_close(loss, torch.tensor(12.25))


def golden_transitions_of_three_stages(cls: type[Path]) -> None:
    # Student 1, 2, 5: products 2 and 10.  Teacher 1, 1, 3: 1 and 3.  (2 - 1)^2 = 1, (10 - 3)^2 = 49.
    student, teacher = (
        [torch.full((1, 1, 1, 1), value) for value in values] for values in ((1.0, 2.0, 5.0), (1.0, 1.0, 3.0))
    )
    path = connect(cls(), [(1, 1, 1)] * 3, [(1, 1, 1)] * 3)
    assert path.layers == ("s0-s1", "s1-s2")
    losses = loss_between(path, student, teacher)
    assert [loss.item() for loss in losses.values()] == [1.0, 49.0]


def golden_adapter_where_widths_differ(cls: type[Path]) -> None:
    # The student's (1, 2), adapted by 1 and -2 to rows (1, 2) and (-2, -4); with (2, 4): G = (5, -10).
    # Teacher: rows (5, 0), (0, -8) and (2, 2): (5, -8).  Differences (0, -2), mean square 2.
    path = identity_adapters(connect(cls(), [(1, 1, 2), (1, 1, 2)], [(2, 1, 2), (1, 1, 2)]))
    assert list(path.adapters) == [key("s0")]
    path.adapters[key("s0")].convolution.weight.data = torch.tensor([1.0, -2.0]).reshape(2, 1, 1, 1)
    student = [torch.tensor([[[[1.0, 2.0]]]]), torch.tensor([[[[2.0, 4.0]]]])]
    teacher = [torch.tensor([[[[5.0, 0.0]], [[0.0, -8.0]]]]), torch.tensor([[[[2.0, 2.0]]]])]
    torch.testing.assert_close(loss_between(path, student, teacher)["s0-s1"], torch.tensor(2.0))


def golden_few_positions(cls: type[Path]) -> None:
    # One position, five channels in either stage: the products aren't formed.  Of the student, rows (2, 0, 0, 0, 1) and
    # (1, 0, 0, 3, 0), the products 2, 6, 1 and 3.  Of the teacher, (1, 0, 0, 0, 1) and (1, 0, 0, 2, 0): 1, 2, 1, 2.
    # Differences 1, 4, 0 and 1: 18 in all, mean over 25.  A second, equal sample: 9/25.
    student, teacher = (
        [torch.tensor([rows, [1.0, 2.0, 3.0, 4.0, 5.0]])[:, :, None, None] for rows in sides]
        for sides in (
            ([2.0, 0.0, 0.0, 0.0, 1.0], [1.0, 0.0, 0.0, 3.0, 0.0]),
            ([1.0, 0.0, 0.0, 0.0, 1.0], [1.0, 0.0, 0.0, 2.0, 0.0]),
        )
    )
    path = connect(cls(), [(5, 1, 1)] * 2, [(5, 1, 1)] * 2)
    torch.testing.assert_close(loss_between(path, student, teacher)["s0-s1"], torch.tensor(9 / 25))
    target = path.target({"t0": teacher[0], "t1": teacher[1]})["s0-s1"]
    torch.testing.assert_close(target, torch.cat(teacher, dim=1)[:, :, 0])


def golden_mean_over_few_positions(cls: type[Path]) -> None:
    # Thirteen channels, all alike, at two positions: (1, 2) and (3, 1) in the student: G = 5/2.  In the teacher, of
    # another size: (1, 1, 1) and (1, 1, 1), G = 1.  (3/2)^2.
    student = [torch.tensor([1.0, 2.0]).expand(1, 13, 1, 2), torch.tensor([3.0, 1.0]).expand(1, 13, 1, 2)]
    path = connect(cls(), [(13, 1, 2)] * 2, [(13, 1, 3)] * 2)
    loss = loss_between(path, student, [torch.ones(1, 13, 1, 3)] * 2)["s0-s1"]
    torch.testing.assert_close(loss, torch.tensor(2.25))


def golden_rounding_below_zero(cls: type[Path]) -> None:
    # Equal features: the three terms cancel, and what rounding leaves over must not become negative for any sample.
    generator = torch.Generator().manual_seed(0)
    maps = [torch.randn(1, 64, 2, 2, generator=generator) for _ in range(2)]
    path = connect(cls(), [(64, 2, 2)] * 2, [(64, 2, 2)] * 2)
    for turn in range(50):
        nearly = [maps[0] + 1e-5 * turn * maps[0].roll(turn, dims=1), maps[1]]
        assert 0 <= loss_between(path, nearly, maps)["s0-s1"].item() < 1e-5


GOLDENS = {
    "FSP": (
        golden_products_of_channels,
        golden_pools_the_larger_map,
        golden_pools_height_and_width_alike,
        golden_windows_that_overlap,
        golden_transitions_of_three_stages,
        golden_adapter_where_widths_differ,
        golden_few_positions,
        golden_mean_over_few_positions,
        golden_rounding_below_zero,
    )
}


def reference(path: Path, student: dict[str, Tensor], teacher: dict[str, Tensor]) -> dict[str, float]:
    """Pair by pair of channels: the mean product over positions, in student and teacher; their squared difference."""
    own = []
    for pair in path.pairs:
        maps = student[pair.student]
        has_adapter = maps.shape[1] != teacher[pair.teacher].shape[1]
        own.append(naive_adapter(path.adapters[key(pair.layer)], maps) if has_adapter else maps.double().tolist())
    wanted = [teacher[pair.teacher].tolist() for pair in path.pairs]
    losses = {}
    for index, (one, other) in enumerate(zip(path.pairs, path.pairs[1:], strict=False)):
        squares = []
        for sample in range(len(own[0])):
            matrices = [_matrix(side[index][sample], side[index + 1][sample]) for side in (own, wanted)]
            squares += [(a - b) ** 2 for rows in zip(*matrices, strict=True) for a, b in zip(*rows, strict=True)]
        losses[f"{one.layer}-{other.layer}"] = sum(squares) / len(squares)
    return losses


def _matrix(first: list[list[list[float]]], second: list[list[list[float]]]) -> list[list[float]]:
    height, width = min(len(first[0]), len(second[0])), min(len(first[0][0]), len(second[0][0]))
    one, other = ([_pooled(channel, height, width) for channel in maps] for maps in (first, second))
    return [[sum(x * y for x, y in zip(a, b, strict=True)) / len(a) for b in other] for a in one]


def _pooled(channel: list[list[float]], height: int, width: int) -> list[float]:
    values = []
    for row in range(height):
        for column in range(width):
            window = [
                channel[y][x]
                for y in _window(row, len(channel), height)
                for x in _window(column, len(channel[0]), width)
            ]
            values.append(sum(window) / len(window))
    return values


def _window(index: int, size: int, cells: int) -> range:
    return range(index * size // cells, -(-(index + 1) * size // cells))


def test_one_stage_is_refused() -> None:
    with pytest.raises(ValueError, match=r"FSP needs two stages or more.*found 1 \(s0\)"):
        connect(FSP(), [(3, 4, 4)], [(3, 4, 4)])
    with pytest.raises(ValueError, match=r"found 1 \(s1\)"):
        connect(FSP([{"student": "s1", "teacher": "t1"}]), [(3, 4, 4)] * 2, [(3, 4, 4)] * 2)


def test_named_taps_are_consecutive_in_their_order() -> None:
    path = FSP([{"student": name, "teacher": name.replace("s", "t")} for name in ("s0", "s2")])
    connect(path, [(1, 4, 4), (2, 2, 2), (3, 1, 1)], [(1, 4, 4), (2, 2, 2), (3, 1, 1)])
    assert path.layers == ("s0-s2",)
    maps = {"t0": torch.randn(2, 1, 4, 4), "t2": torch.randn(2, 3, 1, 1)}
    torch.testing.assert_close(
        path.target(maps)["s0-s2"], maps["t0"].mean((2, 3))[:, :, None] * maps["t2"].mean((2, 3))[:, None]
    )


def test_the_target_has_the_teachers_widths() -> None:
    case = make_case("FSP", student=[(3, 4, 4), (5, 2, 2), (2, 1, 1)], teacher=[(4, 4, 4), (6, 2, 2), (7, 2, 2)])
    assert [tuple(value.shape) for value in case.target().values()] == [(3, 4, 6), (3, 6, 7)]


def test_positions_may_be_permuted_together_and_signs_of_both_stages_do_not_count() -> None:
    path = connect(FSP(), [(3, 4, 4), (5, 4, 4)], [(3, 4, 4), (5, 4, 4)])
    first, second = torch.randn(2, 3, 4, 4), torch.randn(2, 5, 4, 4)
    turned = [-first.rot90(1, (2, 3)), -second.rot90(1, (2, 3))]
    assert loss_between(path, turned, [first, second])["s0-s1"].item() == pytest.approx(0, abs=1e-12)
    assert loss_between(path, [turned[0], second], [first, second])["s0-s1"].item() > 1e-3


FEW = {"student": [(3, 4, 4), (5, 3, 2)], "teacher": [(24, 3, 3), (32, 2, 2)]}
"""Of the teacher's 4 positions and 24 and 32 channels no matrix is formed."""


@pytest.mark.parametrize("training", [True, False])
def test_the_form_of_few_positions_agrees_with_the_equation_in_plain_loops(training: bool) -> None:
    case = make_case("FSP", **FEW)
    case.path.train(training)
    assert case.target()["s0-s1"].shape == (3, 24 + 32, 4)
    wanted = reference(case.path, case.student, case.teacher)
    assert {layer: loss.item() for layer, loss in case.losses().items()} == pytest.approx(wanted, rel=1e-9)


def test_both_forms_have_one_gradient() -> None:
    results = []
    for few in (True, False):
        case = make_case("FSP", **FEW)
        case.path._few_positions = {"s0-s1": few}
        maps = [value.requires_grad_() for name, value in case.student.items() if name]
        losses = case.losses()
        gradients = torch.autograd.grad(losses["s0-s1"], [*maps, *case.path.parameters()])
        results.append([losses["s0-s1"], *gradients])
    for one, other in zip(*results, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-12)


def test_the_form_of_few_positions_in_float32_is_close_to_float64() -> None:
    exact = make_case("FSP", **FEW).losses()["s0-s1"]
    single = make_case("FSP", **FEW, dtype=torch.float32).losses()["s0-s1"]
    assert single.item() == pytest.approx(exact.item(), rel=1e-5)


@pytest.mark.parametrize("scale", [0.0, 1e-20, 1e4])
def test_the_form_of_few_positions_stays_finite(scale: float) -> None:
    case = make_case("FSP", **FEW, dtype=torch.float32)
    case.student = {name: (scale * value).requires_grad_() for name, value in case.student.items()}
    case.teacher = {name: scale * value for name, value in case.teacher.items()}
    loss = case.loss()
    loss.backward()
    assert torch.isfinite(loss)
    assert all(torch.isfinite(case.student[name].grad).all() for name in ("s0", "s1"))


def test_a_stage_of_equal_width_has_no_adapter() -> None:
    assert not list(connect(FSP(), [(3, 4, 4), (5, 2, 2)], [(3, 4, 4), (5, 2, 2)]).parameters())


SIZES = "distill.paths.sizes"

MUTANTS = {
    "FSP": [
        ("first @ second.mT, wanted", "first.abs() @ second.mT, wanted"),
        ("sides[0] @ sides[1].mT", "sides[0].abs() @ sides[1].mT"),
        ("own + wanted - 2 * cross", "own + wanted - cross"),
        ("own + wanted - 2 * cross", "own - wanted"),
        ("/ (student[0].shape[1] * student[1].shape[1])", "/ student[0].shape[1]"),
        (".clamp_min(0).mean()", ".mean()"),
        (".clamp_min(0).mean()", ".clamp_min(0).sum()"),
        ("(one[1].mT @ other[1])", "(one[0].mT @ other[0])"),
        ("/ one.shape[2]", "/ one.shape[1]"),
        ("/ one.shape[2]", "/ one.shape[2] ** 2"),
        ("/ one.shape[2]", ""),
        ("min(one.shape[-1]", "min(one.shape[-2]", SIZES),
        ("F.mse_loss(student, target)", "F.l1_loss(student, target)"),
        ("F.mse_loss(student, target)", "F.mse_loss(student, target, reduction='sum')"),
        ("F.mse_loss(student, target)", "F.mse_loss(student, -target)"),
        ("F.adaptive_avg_pool2d", "F.adaptive_max_pool2d", SIZES),
        ("if own != wanted", "if own == wanted"),
        ("if own != wanted", "if True"),
    ],
}
"""Changes of the source that a golden value notices; see test_mutants."""
