from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from naive_maps import dot, flat, naive_adapter
from path_cases import Largest, batch_of, connect, identity_adapters, make_case
from torch import Tensor
from torch.nn.functional import normalize

from distill.adapter import Adapter
from distill.paths import ICKD, Path
from distill.paths.base import key


def loss_of(cls: type[Path], student: list[list[float]], teacher: list[list[float]], *, silent: int = 0) -> Tensor:
    """Return the loss between maps `[channel][position]` of one sample, with silent channels added to both."""
    maps = [torch.tensor(rows + silent * [[0.0] * len(rows[0])]).double()[None, :, None] for rows in (student, teacher)]
    path = identity_adapters(connect(cls(), *([tuple(each.shape[1:])] for each in maps))).double()
    return path({"s0": maps[0]}, path.target({"t0": maps[1]}), batch_of(1))["s0"]


def golden_gram_of_two_channels(cls: type[Path]) -> None:
    # Student rows (1, 0) and (1, 1): Gram matrix rows (1, 1) / sqrt 2 and (1, 2) / sqrt 5.  Teacher (1, 0) and (0, 3):
    # (1, 0) and (0, 1).  Squared distances 2 - 2 / sqrt 2 and 2 - 4 / sqrt 5, mean 2 - 1 / sqrt 2 - 2 / sqrt 5.
    # A second sample that is equal but for the scale: 0.  Mean over the batch: half of it.
    student = torch.tensor([[[[1.0, 0.0]], [[1.0, 1.0]]], [[[2.0, 4.0]], [[0.0, -2.0]]]])
    teacher = torch.tensor([[[[1.0, 0.0]], [[0.0, 3.0]]], [[[1.0, 2.0]], [[0.0, -1.0]]]])
    path = identity_adapters(connect(cls(), [(2, 1, 2)], [(2, 1, 2)]))
    target = path.target({"t0": teacher})
    torch.testing.assert_close(target["s0"][0], torch.eye(2))
    loss = path({"s0": student}, target, batch_of(2))["s0"]
    torch.testing.assert_close(loss, torch.tensor((2 - 1 / math.sqrt(2) - 2 / math.sqrt(5)) / 2))


def golden_few_positions(cls: type[Path]) -> None:
    # The same two channels among nine, of which the others are silent: the sum over rows by nine.
    loss = loss_of(cls, [[1.0, 0.0], [1.0, 1.0]], [[1.0, 0.0], [0.0, 3.0]], silent=7)
    assert loss.item() == pytest.approx((4 - 2 / math.sqrt(2) - 4 / math.sqrt(5)) / 9, rel=1e-9)


def golden_one_position(cls: type[Path]) -> None:
    # s = (1, -2, 2), t = (2, 1, 2), both of length 3, and two silent channels.  The unit rows are s / 3 or -s / 3, as
    # the channel is positive or negative, and t / 3; s t = 4.  2 - 8/9, 2 + 8/9, 2 - 8/9, 0, 0: mean (46/9) / 5.
    loss = loss_of(cls, [[1.0], [-2.0], [2.0]], [[2.0], [1.0], [2.0]], silent=2)
    assert loss.item() == pytest.approx(46 / 45, rel=1e-9)


def golden_which_form(cls: type[Path]) -> None:
    # More than four times as many channels as positions: the map itself is the target, else the Gram matrix.
    for channels, shape in ((4, (1, 4, 4)), (5, (1, 5, 1, 1))):
        path = connect(cls(), [(3, 1, 1)], [(channels, 1, 1)])
        assert path.target({"t0": torch.ones(1, channels, 1, 1)})["s0"].shape == shape
    path = connect(cls(), [(3, 1, 1)], [(17, 2, 2)])
    assert path.target({"t0": torch.ones(1, 17, 2, 2)})["s0"].shape == (1, 17, 2, 2)


def golden_adapter_is_used(cls: type[Path]) -> None:
    # Student rows (1, 0) and (0, 1), mixed to (1, 1) and (0, 1): Gram rows (2, 1) / sqrt 5 and (1, 1) / sqrt 2.
    # Teacher (1, 0) and (0, 1).  Squared distances 2 - 4 / sqrt 5 and 2 - 2 / sqrt 2, by two or by nine channels.
    for channels in (2, 9):
        features = torch.eye(channels, 2).reshape(1, channels, 1, 2)
        path = identity_adapters(connect(cls(), [(channels, 1, 2)], [(channels, 1, 2)]))
        (adapter,) = (module for module in path.modules() if isinstance(module, Adapter))
        adapter.convolution.weight.data[0, 1] = 1
        loss = path({"s0": features}, path.target({"t0": features}), batch_of(1))["s0"]
        torch.testing.assert_close(loss, torch.tensor((4 - 4 / math.sqrt(5) - 2 / math.sqrt(2)) / channels))


def golden_silent_row(cls: type[Path]) -> None:
    # One student channel of energy 5e-13, divided by 1e-12: .5; the teacher's is 1: .25, by one or by five channels.
    weak = math.sqrt(5e-13)
    assert loss_of(cls, [[weak]], [[3.0]]).item() == pytest.approx(0.25, rel=1e-6)
    assert loss_of(cls, [[weak]], [[3.0]], silent=4).item() == pytest.approx(0.05, rel=1e-6)


def golden_rounding_below_zero(cls: type[Path]) -> None:
    # One live channel among nine, few positions, the student's at another scale: what rounding leaves of its distance
    # must not become negative.
    path = identity_adapters(connect(cls(), [(9, 1, 2)], [(9, 1, 2)]))
    for seed in range(50):
        features = torch.zeros(1, 9, 1, 2)
        features[0, 0, 0] = torch.randn(2, generator=torch.Generator().manual_seed(seed))
        loss = path({"s0": (seed + 3) * features}, path.target({"t0": features}), batch_of(1))["s0"]
        assert 0 <= loss.item() < 1e-6


def golden_deepest_features(cls: type[Path]) -> None:
    assert [pair.layer for pair in connect(cls(), [(1, 4, 4), (1, 2, 2)], [(1, 4, 4), (1, 2, 2)]).pairs] == ["s1"]


def golden_two_by_two_cells(cls: type[Path]) -> None:
    # Four cells of a 3 x 2 map of two channels: the first rows are two high, the second one.  In the upper left cell
    # the student's channels are (1, 1) and (1, -1), orthogonal: rows (1, 0), (0, 1); the teacher's (1, 1) and (2, 2):
    # Gram 2 4, 4 8: rows (1, 2) / sqrt 5.  Squared distances 2 - 2 / sqrt 5 and 2 - 4 / sqrt 5.
    # All other cells agree: mean over 4 cells and 2 channels of 4 - 6 / sqrt 5.
    student, teacher = torch.full((1, 2, 3, 2), 2.0).double(), torch.full((1, 2, 3, 2), 7.0).double()
    student[0, :, :2, 0] = torch.tensor([[1.0, 1.0], [1.0, -1.0]])
    teacher[0, :, :2, 0] = torch.tensor([[1.0, 1.0], [2.0, 2.0]])
    path = identity_adapters(connect(cls(grid=2), [(2, 3, 2)], [(2, 3, 2)])).double()
    target = path.target({"t0": teacher})
    assert target["s0"].shape == (1, 4, 2, 2)
    wanted = (4 - 6 / math.sqrt(5)) / 8
    assert path({"s0": student}, target, batch_of(1))["s0"].item() == pytest.approx(wanted)
    # A teacher of more than four channels a position of a cell is kept as it is; those without a value are silent.
    wide = torch.cat([teacher, torch.zeros(1, 5, 3, 2)], dim=1)
    path = identity_adapters(connect(cls(grid=2), [(2, 3, 2)], [(7, 3, 2)])).double()
    target = path.target({"t0": wide})
    torch.testing.assert_close(target["s0"], wide)
    assert path({"s0": student}, target, batch_of(1))["s0"].item() == pytest.approx(wanted * 2 / 7)


GOLDENS = {
    "ICKD": (
        golden_gram_of_two_channels,
        golden_few_positions,
        golden_one_position,
        golden_which_form,
        golden_adapter_is_used,
        golden_silent_row,
        golden_rounding_below_zero,
        golden_deepest_features,
        golden_two_by_two_cells,
    )
}


def reference(path: Path, student: dict[str, Tensor], teacher: dict[str, Tensor]) -> dict[str, float]:
    """Channel by channel: its products with all channels, at unit length, in both models; their squared distance."""
    losses = {}
    for pair in path.pairs:
        adapted = naive_adapter(path.adapters[key(pair.layer)], student[pair.student])
        distances = []
        for one, other in zip(adapted, teacher[pair.teacher].tolist(), strict=True):
            s, t = ([flat(grid) for grid in maps] for maps in (one, other))
            for i in range(len(t)):
                g, h = (_unit([dot(rows[i], row) for row in rows]) for rows in (s, t))
                distances.append(sum((a - b) ** 2 for a, b in zip(g, h, strict=True)))
        losses[pair.layer] = sum(distances) / len(distances)
    return losses


def _unit(row: list[float]) -> list[float]:
    length = max(math.sqrt(dot(row, row)), 1e-12)
    return [value / length for value in row]


SHAPES = pytest.mark.parametrize(
    ("student", "teacher"),
    [((5, 2, 2), (32, 2, 2)), ((40, 3, 2), (32, 1, 3)), ((3, 1, 1), (9, 1, 1))],
    ids=["equal positions", "more positions in the student", "one position"],
)


@SHAPES
def test_few_positions_agree_with_the_gram_matrices(student: Any, teacher: Any) -> None:
    case = make_case("ICKD", student=[student], teacher=[teacher], batch_size=4)
    assert case.target()["s0"].shape == (4, *teacher)
    rows = [maps.flatten(2) for maps in (case.path.adapt("s0", case.student["s0"]), case.teacher["t0"])]
    own, other = (normalize(each @ each.mT, dim=2) for each in rows)
    primal = (own - other).square().sum(dim=2).mean()
    weight = case.path.adapters[key("s0")].convolution.weight
    (wanted,) = torch.autograd.grad(primal, [weight])
    loss = case.losses()["s0"]
    (found,) = torch.autograd.grad(loss, [weight])
    torch.testing.assert_close(loss, primal, rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(found, wanted, rtol=1e-8, atol=1e-11)


@SHAPES
def test_few_positions_agree_with_the_equation_in_plain_loops(student: Any, teacher: Any) -> None:
    case = make_case("ICKD", student=[student], teacher=[teacher])
    wanted = reference(case.path, case.student, case.teacher)
    assert case.losses()["s0"].item() == pytest.approx(wanted["s0"], rel=1e-9)


def test_few_positions_in_float32_are_close_to_float64() -> None:
    """Channels of strengths over three orders of magnitude, as after a ReLU and a few epochs of decay."""
    case = make_case("ICKD", student=[(64, 3, 3)], teacher=[(64, 3, 3)], batch_size=2)
    strength = torch.logspace(-3, 0, 64, dtype=torch.float64)
    case.path.adapters[key("s0")].norm.weight.data = strength
    case.path.adapters[key("s0")].norm.bias.data.zero_()
    case.teacher["t0"] = case.teacher["t0"].relu() * strength.flip(0)[:, None, None]
    outcomes = []
    for dtype in (torch.float64, torch.float32):
        case.path.to(dtype)
        features = case.student["s0"].to(dtype).requires_grad_()
        target = case.path.target({"t0": case.teacher["t0"].to(dtype)})
        loss = case.path({"s0": features}, target, batch_of(2))["s0"]
        outcomes.append((loss, *torch.autograd.grad(loss, [features])))
    (exact, exact_slope), (single, single_slope) = outcomes
    assert single.item() == pytest.approx(exact.item(), abs=1e-5)
    assert (single_slope - exact_slope).norm() < 1e-3 * exact_slope.norm()


def test_a_weak_channel_beside_strong_ones_costs_no_more_than_four() -> None:
    """Float32 cannot tell the weak row's products from rounding; its loss and slope must not explode."""
    strong, weak = torch.ones(1, 8, 1, 2) * 1e3, torch.tensor([[[[1e-3, -1.1e-3]]]])
    features = torch.cat([strong + torch.rand(8, 1, 2, generator=torch.Generator().manual_seed(0)), weak], dim=1)
    path = identity_adapters(connect(ICKD(), [(9, 1, 2)], [(9, 1, 2)]))
    own = features.roll(1, dims=3).requires_grad_()
    loss = path({"s0": own}, path.target({"t0": features}), batch_of(1))["s0"]
    loss.backward()
    assert 0 <= loss.item() <= 4
    assert own.grad is not None
    assert torch.isfinite(own.grad).all()


def test_few_positions_never_hold_a_channel_by_channel_matrix() -> None:
    case = make_case("ICKD", student=[(4, 2, 2)], teacher=[(64, 2, 2)], batch_size=2, dtype=torch.float32)
    with Largest() as largest:
        case.losses()["s0"].backward()
    assert largest.numel == 2 * 64 * 4


def test_strong_channels_outweigh_weak_ones_unlike_in_nst_gram() -> None:
    """A weak channel that turns away changes all cosines with it by much, and the strong channels' rows by little."""
    features = torch.tensor([[[[1.0, 0.0, 0.0]], [[0.9, 0.1, 0.0]], [[0.01, 0.0, 0.0]]]], dtype=torch.float64)
    turned = features.clone()
    turned[0, 2, 0] = torch.tensor([0.0, 0.0, 0.01])
    losses = {}
    for name in ("ICKD", "NSTGram"):
        case = make_case(name, student=[(3, 1, 3)], teacher=[(3, 1, 3)], batch_size=1)
        identity_adapters(case.path)
        for norm in (module for module in case.path.modules() if isinstance(module, torch.nn.BatchNorm2d)):
            torch.nn.init.ones_(norm.weight)
            torch.nn.init.zeros_(norm.bias)
        target = case.path.target({"t0": features})
        losses[name] = case.path({"s0": turned}, target, batch_of(1))["s0"].item()
    # NSTGram: the cosines of the weak channel, twice 1 and .9 / sqrt(.82), over nine pairs.  ICKD: the weak channel's
    # own row turns by a right angle, 2 of three rows; the others move by about their product with it, squared.
    assert losses["NSTGram"] == pytest.approx(2 * (1 + 0.81 / 0.82) / 9, rel=1e-9)
    assert losses["ICKD"] == pytest.approx(2 / 3, rel=1e-2)


def test_scale_of_the_whole_map_does_not_count() -> None:
    case = make_case("ICKD", student=[(4, 3, 3)], teacher=[(4, 3, 3)])
    before = case.loss().item()
    case.teacher["t0"] = 7 * case.teacher["t0"]
    assert case.loss().item() == pytest.approx(before, rel=1e-12)


@pytest.mark.parametrize(
    ("student", "teacher"), [((3, 4, 6), (5, 4, 6)), ((3, 5, 3), (4, 3, 7)), ((3, 3, 3), (24, 4, 4))]
)
@pytest.mark.parametrize("grid", [2, 3])
def test_each_cell_is_a_map_of_its_own(student: Any, teacher: Any, grid: int) -> None:
    case = make_case("ICKD", student=[student], teacher=[teacher])
    case.path.eval()
    adapted = case.path.adapt("s0", case.student["s0"])
    plain = identity_adapters(connect(ICKD(), [teacher], [teacher])).double()
    losses = []
    for row in range(grid):
        for column in range(grid):
            one, other = (_cell(maps, row, column, grid) for maps in (adapted, case.teacher["t0"]))
            losses.append(plain({"s0": one}, plain.target({"t0": other}), batch_of(3))["s0"])
    path = connect(ICKD(grid=grid), [student], [teacher]).double().eval()
    path.load_state_dict(case.path.state_dict())
    case.path = path
    torch.testing.assert_close(case.loss(), torch.stack(losses).mean())
    assert torch.autograd.gradcheck(
        lambda maps: path({"s0": maps}, case.target(), batch_of(3))["s0"],
        [case.student["s0"].requires_grad_()],
        fast_mode=True,
    )


def _cell(maps: Tensor, row: int, column: int, grid: int) -> Tensor:
    """Return a cell; the first ones are longer by one where a side does not divide."""
    for dim, index in ((2, row), (3, column)):
        length, longer = divmod(maps.shape[dim], grid)
        maps = maps.narrow(dim, index * length + min(index, longer), length + (index < longer))
    return maps


def test_more_cells_than_positions_are_refused() -> None:
    with pytest.raises(ValueError, match=r"grid: 3 divides maps .*, but 's0' has 4 x 2 positions; at most 2 is"):
        connect(ICKD(grid=3), [(3, 4, 2)], [(3, 4, 4)])
    with pytest.raises(ValueError, match="grid must be a whole number of at least 1, found 0"):
        ICKD(grid=0)


MUTANTS = {
    "ICKD": [
        ("EPSILON = 1e-12", "EPSILON = 1e-6"),
        ("dim=2, eps=EPSILON", "dim=2, p=1, eps=EPSILON"),
        ("- target).square().sum(dim=2)", "+ target).square().sum(dim=2)"),
        ("- target).square().sum(dim=2)", "- target).abs().sum(dim=2)"),
        ("- target).square().sum(dim=2)", "- target).square().mean(dim=2)"),
        ("_unit_rows(rows @ rows.mT)", "(rows @ rows.mT)"),
        ("_unit_rows(self.adapter(layer).gram(student))", "self.adapter(layer).gram(student)"),
        ("self.adapter(layer).gram(student)", "student.flatten(2) @ student.flatten(2).mT"),
        ("self.adapt(layer, student).flatten(2)", "student.flatten(2)"),
        ("target.flatten(2)).mean()", "target.flatten(2)).sum()"),
        ("other.channels > self", "other.channels < self"),
        ("other.width / self.grid**2", "other.width"),
        ("- target).square().sum(dim=3)", "+ target).square().sum(dim=3)"),
        ("_row_distances(own, other).mean() for", "_row_distances(own, other).sum() for"),
        ("(self.grid, dim=2)", "(1, dim=2)"),
        ("row.tensor_split(self.grid, dim=3)", "row.tensor_split(1, dim=3)"),
        ("most_channels = 4", "most_channels = 1"),
        ("clamp_min(EPSILON**2)", "clamp_min(EPSILON)"),
        ("- 2 * cosines", "- cosines"),
        ("- 2 * cosines", "+ 2 * cosines"),
        (".clamp(-1, 1)", ".clamp(0, 1)"),
        ("cosines).clamp_min(0)", "cosines)"),
        ("own * own_scale.square()", "own_scale.square()"),
        ("(student.mT @ teacher)) * teacher", "(student.mT @ teacher)) * student"),
        ("((rows @ (rows.mT @ rows)) * rows).sum(dim=2)", "((rows @ (rows.mT @ rows)) * rows).mean(dim=2)"),
        ("only_last = True", "only_last = False"),
    ],
}
"""Changes of the source that a golden value notices; see test_mutants."""
