from __future__ import annotations

from typing import Any

import pytest
import torch
from naive_maps import flat, pooled_alike, samples
from path_cases import batch_of, connect, make_case, make_probe
from torch import Tensor, nn

from distill.paths import Hint, Path, Schedule
from distill.paths.base import key
from distill.taps import OUTPUT

DOWN = [{"student": "s0", "teacher": "t1"}]
"""Stages of the test probes have strides 1, 2, 4, ...: the student's map is twice as large as the teacher's."""
UP = [{"student": "s1", "teacher": "t0"}]
FAR_DOWN = [{"student": "s0", "teacher": "t2"}]
FAR_UP = [{"student": "s2", "teacher": "t0"}]


def plain(path: Path, *, kernel: float | None = None, epsilon: float = 0.0) -> Path:
    """Make the regressors' norms the identity, and the kernels too, or one number everywhere."""
    path.eval()
    for module in path.modules():
        if isinstance(module, nn.Conv2d) and kernel is None:
            nn.init.dirac_(module.weight)
        elif isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
            nn.init.constant_(module.weight, 1.0 if kernel is None else kernel)
        if isinstance(module, nn.BatchNorm2d):
            module.eps = epsilon
    return path


def loss_of(path: Path, student: Any, teacher: Any) -> float:
    """Return the loss of the path's one pair, between maps given as `[channel][row][column]` of one sample."""
    (pair,) = path.pairs
    one, other = (torch.tensor(maps)[None] for maps in (student, teacher))
    return path({pair.student: one}, path.target({pair.teacher: other}), batch_of(1))[pair.layer].item()


def golden_mean_of_squares(cls: type[Path]) -> None:
    # First sample: differences 3 - 1, -2 - 0, 0, 4 - 1: squares 4, 4, 0, 9, mean 17/4.  Second: equal.  Mean 17/8.
    student = torch.tensor([[[[3.0, -2.0]], [[5.0, 4.0]]], [[[1.0, 1.0]], [[0.0, 4.0]]]])
    teacher = torch.tensor([[[[1.0, 0.0]], [[5.0, 1.0]]], [[[1.0, 1.0]], [[0.0, 4.0]]]])
    path = plain(connect(cls(), [(2, 1, 2)], [(2, 1, 2)]))
    target = path.target({"t0": teacher})
    torch.testing.assert_close(target["s0"], teacher)
    torch.testing.assert_close(path({"s0": student}, target, batch_of(2))["s0"], torch.tensor(17 / 8))


def golden_negative_targets(cls: type[Path]) -> None:
    # No ReLU behind the regressor: what is negative can be foretold.
    path = plain(connect(cls(), [(1, 1, 2)], [(1, 1, 2)]))
    assert loss_of(path, [[[-3.0, 2.0]]], [[[-3.0, 2.0]]]) == 0


def golden_widths_and_neighbours(cls: type[Path]) -> None:
    # A kernel of ones on 1 2 / 3 4 sums all that is within reach, here everything: 10 for each of two channels.
    # Teacher 9 and 12: squares 1 and 4, mean 2.5.
    path = plain(connect(cls(), [(1, 2, 2)], [(2, 2, 2)]), kernel=1.0)
    teacher = [[[value] * 2] * 2 for value in (9.0, 12.0)]
    assert loss_of(path, [[[1.0, 2.0], [3.0, 4.0]]], teacher) == pytest.approx(2.5)
    # On a row of four with the edges padded by zeros: 1 + 2, 1 + 2 + 3, 2 + 3 + 4, 3 + 4 = 3, 6, 9, 7.
    path = plain(connect(cls(), [(1, 1, 4)], [(1, 1, 4)]), kernel=1.0)
    assert loss_of(path, [[[1.0, 2.0, 3.0, 4.0]]], [[[3.0, 6.0, 9.0, 7.0]]]) == pytest.approx(0)


def golden_teacher_of_twice_the_stride(cls: type[Path]) -> None:
    # A 3x3 kernel of ones at every second position of the row 1 2 3 4 above zeros: around 1: 1 + 2, around 3: 2 + 3 +
    # 4.
    path = plain(connect(cls(taps=DOWN), [(1, 2, 4), (1, 1, 1)], [(1, 1, 1), (1, 1, 2)]), kernel=1.0)
    assert loss_of(path, [[[1.0, 2.0, 3.0, 4.0], [0.0] * 4]], [[[3.0, 9.0]]]) == pytest.approx(0)


def golden_teacher_of_four_times_the_stride(cls: type[Path]) -> None:
    # A 7x7 kernel of ones at every fourth position of the row 1 to 8: around 1: 1 to 4, around 5: 2 to 8.
    stages = [(1, 4, 8), (1, 1, 1), (1, 1, 1)]
    path = plain(connect(cls(taps=FAR_DOWN), stages, [(1, 1, 1), (1, 1, 1), (1, 1, 2)]), kernel=1.0)
    row = [float(value) for value in range(1, 9)]
    assert loss_of(path, [[row, *[[0.0] * 8] * 3]], [[[10.0, 35.0]]]) == pytest.approx(0)


def golden_teacher_of_half_the_stride(cls: type[Path]) -> None:
    # A transposed 4x4 kernel of ones, two apart: 1 and 10 each reach one position beyond their two: 1, 1 + 10, 1 + 10,
    # 10 in either of two rows.
    path = plain(connect(cls(taps=UP), [(1, 1, 1), (1, 1, 2)], [(1, 2, 4), (1, 1, 1)]), kernel=1.0)
    assert loss_of(path, [[[1.0, 10.0]]], [[[1.0, 11.0, 11.0, 10.0]] * 2]) == pytest.approx(0)


def golden_teacher_of_a_quarter_of_the_stride(cls: type[Path]) -> None:
    # A transposed 8x8 kernel of ones, four apart: 1 and 10 each reach two positions beyond their four.
    stages = [(1, 1, 1), (1, 1, 1), (1, 1, 2)]
    path = plain(connect(cls(taps=FAR_UP), stages, [(1, 4, 8), (1, 1, 1), (1, 1, 1)]), kernel=1.0)
    row = [1.0] * 2 + [11.0] * 4 + [10.0] * 2
    assert loss_of(path, [[[1.0, 10.0]]], [[row] * 4]) == pytest.approx(0)


def golden_pools_the_larger_map(cls: type[Path]) -> None:
    # One stride, but two sizes: columns (1, 3) and (2, 8), averaged: 2, 5 against 2, 7: mean 2.  By maximum: 3, 8.
    small, large = [[[2.0, 7.0]]], [[[1.0, 2.0], [3.0, 8.0]]]
    path = plain(connect(cls(), [(1, 1, 2)], [(1, 2, 2)]))
    assert loss_of(path, small, large) == pytest.approx(2)
    path = plain(connect(cls(), [(1, 2, 2)], [(1, 1, 2)]))
    assert loss_of(path, large, small) == pytest.approx(2)


def golden_norm(cls: type[Path]) -> None:
    # In training BatchNorm brings 1 and 3 to -1 and 1: against 0 and 0, mean 1.
    path = plain(connect(cls(), [(1, 1, 2)], [(1, 1, 2)]), epsilon=1e-12).train()
    assert loss_of(path, [[[1.0, 3.0]]], [[[0.0, 0.0]]]) == pytest.approx(1)


def golden_middle_stage(cls: type[Path]) -> None:
    # Of one, two, three, four and five stages: 0, 0, 1, 1, 2.
    for number, middle in enumerate((0, 0, 1, 1, 2), start=1):
        stages = [(index + 1, 4, 4) for index in range(number)]
        assert [pair.layer for pair in connect(cls(), stages, stages).pairs] == [f"s{middle}"]


GOLDENS = {
    "Hint": (
        golden_mean_of_squares,
        golden_negative_targets,
        golden_widths_and_neighbours,
        golden_teacher_of_twice_the_stride,
        golden_teacher_of_four_times_the_stride,
        golden_teacher_of_half_the_stride,
        golden_teacher_of_a_quarter_of_the_stride,
        golden_pools_the_larger_map,
        golden_norm,
        golden_middle_stage,
    )
}


def reference(path: Path, student: dict[str, Tensor], teacher: dict[str, Tensor]) -> dict[str, float]:
    """Position by position: convolution, BatchNorm, window means, squared difference."""
    losses = {}
    for layer, pairs in samples(path, student, teacher).items():
        regressor = path.regressors[key(layer)]
        regressed = naive_norm(regressor.norm, [naive_convolution(regressor.convolution, one) for one, _ in pairs])
        squares = []
        for one, (_, other) in zip(regressed, pairs, strict=True):
            for maps in zip(*pooled_alike(one, other), strict=True):
                squares.extend((a - b) ** 2 for a, b in zip(*map(flat, maps), strict=True))
        losses[layer] = sum(squares) / len(squares)
    return losses


def naive_convolution(convolution: nn.Module, maps: Any) -> list[Any]:
    """Let every input reach every output that the kernel, stride and padding connect."""
    transposed = isinstance(convolution, nn.ConvTranspose2d)
    weight = convolution.weight.double().transpose(0, 1) if transposed else convolution.weight.double()
    size, stride, padding = convolution.kernel_size[0], convolution.stride[0], convolution.padding[0]
    rows, columns = len(maps[0]), len(maps[0][0])
    if transposed:
        height, width = ((length - 1) * stride - 2 * padding + size for length in (rows, columns))
    else:
        height, width = ((length + 2 * padding - size) // stride + 1 for length in (rows, columns))
    found = [[[0.0] * width for _ in range(height)] for _ in range(len(weight))]
    for out, kernels in enumerate(weight.tolist()):
        for kernel, grid in zip(kernels, maps, strict=True):
            for i in range(size):
                for j in range(size):
                    for y in range(height):
                        for x in range(width):
                            if transposed:
                                (r, row_rest), (c, column_rest) = (
                                    divmod(at + padding - offset, stride) for at, offset in ((y, i), (x, j))
                                )
                                reached = row_rest == column_rest == 0
                            else:
                                r, c = (at * stride + offset - padding for at, offset in ((y, i), (x, j)))
                                reached = True
                            if reached and 0 <= r < rows and 0 <= c < columns:
                                found[out][y][x] += kernel[i][j] * grid[r][c]
    return found


def naive_norm(norm: nn.BatchNorm2d, batch: list[Any]) -> list[Any]:
    """Compute BatchNorm in plain loops; `[batch][channel][row][column]`."""
    for channel, (scale, shift) in enumerate(zip(norm.weight.tolist(), norm.bias.tolist(), strict=True)):
        values = [value for maps in batch for value in flat(maps[channel])]
        mean = sum(values) / len(values)
        variance = sum((value - mean) ** 2 for value in values) / len(values)
        if not norm.training:
            mean, variance = norm.running_mean[channel].item(), norm.running_var[channel].item()
        factor = scale / (variance + norm.eps) ** 0.5
        for maps in batch:
            maps[channel] = [[factor * (value - mean) + shift for value in row] for row in maps[channel]]
    return batch


STAGES = [(2, 8, 8), (3, 4, 4), (2, 2, 2)]


@pytest.mark.parametrize(
    ("taps", "kind", "kernel"),
    [
        (DOWN, nn.Conv2d, 3),
        (FAR_DOWN, nn.Conv2d, 7),
        (UP, nn.ConvTranspose2d, 4),
        (FAR_UP, nn.ConvTranspose2d, 8),
    ],
    ids=["down", "far down", "up", "far up"],
)
@pytest.mark.parametrize("size", ["as at connect", "odd"])
def test_regressors_between_strides_agree_with_plain_loops(taps: Any, kind: type, kernel: int, size: str) -> None:
    torch.manual_seed(0)
    path = connect(Hint(taps=taps), STAGES, STAGES).double()
    (pair,) = path.pairs
    convolution = path.regressors[key(pair.layer)].convolution
    assert type(convolution) is kind
    assert convolution.kernel_size == (kernel, kernel)
    if size == "as at connect":
        shapes = [STAGES[int(tap[1])] for tap in (pair.student, pair.teacher)]
    else:  # larger images, whose maps are no multiples of each other
        shapes = [
            (STAGES[index][0], -(-19 // 2**index), -(-15 // 2**index))
            for index in (int(tap[1]) for tap in (pair.student, pair.teacher))
        ]
    student, teacher = (torch.randn(2, *shape, dtype=torch.float64) for shape in shapes)
    wanted = reference(path, {pair.student: student}, {pair.teacher: teacher})
    found = path({pair.student: student}, path.target({pair.teacher: teacher}), batch_of(2))
    assert {layer: loss.item() for layer, loss in found.items()} == pytest.approx(wanted, rel=1e-9)


@pytest.mark.parametrize("taps", [DOWN, FAR_DOWN, UP, FAR_UP], ids=["down", "far down", "up", "far up"])
def test_regressor_gives_the_teachers_size_and_skips_no_position(taps: Any) -> None:
    path = connect(Hint(taps=taps), STAGES, STAGES)
    (pair,) = path.pairs
    student = torch.randn(2, *STAGES[int(pair.student[1])]).requires_grad_()
    regressed = path.regressors[key(pair.layer)](student)
    assert regressed.shape[1:] == STAGES[int(pair.teacher[1])]
    (gradient,) = torch.autograd.grad((regressed * torch.randn_like(regressed)).sum(), [student])
    assert (gradient != 0).all()


def test_a_student_like_the_teacher_costs_nothing() -> None:
    features = torch.randn(2, 3, 4, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    path = plain(connect(Hint(), [(3, 4, 4)], [(3, 4, 4)])).double()
    loss = path({"s0": features}, path.target({"t0": features}), batch_of(2))["s0"]
    assert loss.item() == pytest.approx(0, abs=1e-20)


def test_paddings_that_differ_are_no_stride() -> None:
    """54 and 56 rows of one stride: a 3x3 convolution, and the larger map is pooled."""
    case = make_case("Hint", student=[(2, 7, 7)], teacher=[(3, 6, 6)])
    convolution = case.path.regressors[key("s0")].convolution
    assert (type(convolution), convolution.stride, convolution.kernel_size) == (nn.Conv2d, (1, 1), (3, 3))


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last], ids=["nchw", "nhwc"])
@pytest.mark.parametrize("batch_size", [1, 2])
def test_gradient_does_not_depend_on_the_memory_layout(layout: torch.memory_format, batch_size: int) -> None:
    """BatchNorm on CPU (torch 2.14) returns a wrong gradient for one sample if the incoming one is transposed."""
    case = make_case("Hint", batch_size=batch_size)
    features = case.student["s0"].contiguous(memory_format=layout).requires_grad_()
    target = case.target()
    direction = torch.randn(features.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    batch = batch_of(batch_size)
    (slope,) = torch.autograd.grad(case.path({"s0": features}, target, batch)["s0"], [features])
    ahead, behind = (
        case.path({"s0": (features + step * direction).detach()}, target, batch)["s0"].item() for step in (1e-5, -1e-5)
    )
    assert (slope * direction).sum().item() == pytest.approx((ahead - behind) / 2e-5, rel=1e-6)


def test_schedule_lets_it_leave_after_the_first_stage_of_the_training() -> None:
    path = Hint()
    path.schedule = Schedule(end=0.3)
    assert [path.schedule.factor(done).item() for done in (0.0, 0.29, 0.3, 1.0)] == [1, 1, 0, 0]


def test_several_named_pairs_have_a_regressor_each() -> None:
    pairs = [{"student": "s0", "teacher": "t0"}, {"student": "s1", "teacher": "t0"}]
    path = Hint(taps=pairs)
    path.connect(make_probe("s", STAGES), make_probe("t", STAGES))
    assert path.layers == ("s0", "s1")
    assert set(path.regressors) == {key("s0"), key("s1")}
    student, teacher = ({f"{side}{i}": torch.randn(2, *shape) for i, shape in enumerate(STAGES)} for side in "st")
    losses = path({OUTPUT: torch.zeros(2, 4), **student}, path.target(teacher), batch_of(2))
    assert list(losses) == ["s0", "s1"]


MUTANTS = {
    "Hint": [
        ("F.mse_loss(", "F.l1_loss("),
        ("F.mse_loss(regressed, target)", "F.mse_loss(regressed, target, reduction='sum')"),
        ("F.mse_loss(regressed, target)", "F.mse_loss(regressed.relu(), target)"),
        ("F.mse_loss(regressed, target)", "F.mse_loss(-regressed, target)"),
        ("(len(pairs) - 1) // 2", "len(pairs) // 2"),
        ("(len(pairs) - 1) // 2", "-1"),
        ("teacher.octave - student.octave", "0 * teacher.octave"),
        ("teacher.octave - student.octave", "student.octave - teacher.octave"),
        ("2 * stride, stride, padding=stride // 2", "2 * stride, stride, padding=0"),
        ("2 * stride, stride, padding=stride // 2", "stride, stride"),
        ("max(stride - 1, 1)", "1"),
        ("max(stride - 1, 1)", "stride - 1"),
        ("2 * reach + 1, stride, padding=reach", "2 * reach + 1, 1, padding=reach"),
        ("self.norm(self.convolution(features))", "self.convolution(features)"),
        ("F.adaptive_avg_pool2d", "F.adaptive_max_pool2d", "distill.paths.sizes"),
    ],
}
"""Changes of the source that a golden value notices; see test_mutants."""
