from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from path_cases import batch_of, connect, make_case
from torch import Tensor, nn

from distill.models import ResNet8, ResNet14
from distill.paths import Path, ReviewKD
from distill.paths.base import key
from distill.taps import probe


def plain(path: Path) -> Path:
    """Let convolutions hand on their first channels, norms do nothing, and attention be 1/2 everywhere."""
    path.eval()
    for module in path.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.eps = 0.0
        elif isinstance(module, nn.Conv2d) and module.bias is None:
            nn.init.dirac_(module.weight)
        elif isinstance(module, nn.Conv2d):
            nn.init.zeros_(module.weight)
            nn.init.zeros_(module.bias)
    return path


def row(*values: float) -> Tensor:
    """Return a map of one sample, one channel and one row."""
    return torch.tensor(values).reshape(1, 1, 1, -1)


def golden_fusion(cls: type[Path]) -> None:
    # The student's (2, 4) averages to 3, which the deepest level hands on.  The teacher's (1, 4.5) averages to 2.75:
    # (3 - 2.75)^2 = 0.0625.  Attention sigmoid(ln 3) = 3/4 for the stage and sigmoid(0) = 1/2 for what is deeper:
    # 3/4 (2, 4) + 1/2 3 = (3, 4.5); squares (4, 0), mean 2.
    path = plain(connect(cls(), [(1, 1, 2)], [(1, 1, 2)]))
    assert path.layers == ("s0", "s0-pooled")
    path.levels[key("s0")].attention.bias.data[0] = math.log(3)
    target = path.target({"t0": row(1.0, 4.5)})
    torch.testing.assert_close(target["s0-pooled"], torch.full((1, 1, 1, 1), 2.75))
    losses = path({"s0": row(2.0, 4.0)}, target, batch_of(1))
    torch.testing.assert_close(losses["s0-pooled"], torch.tensor(0.0625))
    torch.testing.assert_close(losses["s0"], torch.tensor(2.0))


def golden_attention_looks_at_both_maps(cls: type[Path]) -> None:
    # The student's (1, 0), averaged 1/2, doubled by the deepest level's first convolution: 1.  Attention of the stage
    # sigmoid(ln 3 * own) = (3/4, 1/2), of what is deeper sigmoid(ln 4 * deeper) = 4/5.
    # Fused (3/4 * 1 + 4/5 * 1, 0 + 4/5) = (1.55, 0.8); against (1.05, 0.8): mean square 0.125.
    path = plain(connect(cls(), [(1, 1, 2)], [(1, 1, 2)]))
    path.levels[key("s0-pooled")].entry[0].weight.data.fill_(2)
    path.levels[key("s0")].attention.weight.data = torch.tensor([[math.log(3), 0], [0, math.log(4)]])[:, :, None, None]
    loss = path({"s0": row(1.0, 0.0)}, path.target({"t0": row(1.05, 0.8)}), batch_of(1))["s0"]
    torch.testing.assert_close(loss, torch.tensor(0.125))


def golden_last_convolution_sees_neighbours(cls: type[Path]) -> None:
    # Attention 1 and 0: the stage alone, (1, 2, 3), each place handed to the right and 0 entering: (0, 1, 2).
    # Against (0, 1, 5): squares (0, 0, 9), mean 3.
    path = plain(connect(cls(), [(1, 1, 3)], [(1, 1, 3)]))
    level = path.levels[key("s0")]
    level.attention.bias.data = torch.tensor([100.0, -100.0])
    level.exit[0].weight.data.zero_()
    level.exit[0].weight.data[0, 0, 1, 0] = 1
    loss = path({"s0": row(1.0, 2.0, 3.0)}, path.target({"t0": row(0.0, 1.0, 5.0)}), batch_of(1))["s0"]
    torch.testing.assert_close(loss, torch.tensor(3.0))


def golden_enlarges_by_neighbours(cls: type[Path]) -> None:
    # Stage 1 is (2, 6), attention 1 for it and 0 for what is deeper: fused (2, 6), in stage 0 enlarged to (2, 2, 6, 6).
    # Stage 0 is 0 everywhere, attention 1/2: (1, 1, 3, 3).  Against (1, 1, 3, 5): squares (0, 0, 0, 4), mean 1.
    path = plain(connect(cls(), [(1, 1, 4), (1, 1, 2)], [(1, 1, 4), (1, 1, 2)]))
    assert path.layers == ("s0", "s1", "s1-pooled")
    path.levels[key("s1")].attention.bias.data = torch.tensor([100.0, -100.0])
    path.levels[key("s1")].exit[0].weight.data.zero_()  # what is handed on is the fused map, not what is compared
    target = path.target({"t0": row(1.0, 1.0, 3.0, 5.0), "t1": row(1.0, 3.0)})
    losses = path({"s0": torch.zeros(1, 1, 1, 4), "s1": row(2.0, 6.0)}, target, batch_of(1))
    torch.testing.assert_close(losses["s0"], torch.tensor(1.0))
    torch.testing.assert_close(losses["s1"], torch.tensor(5.0))  # (0 - 1)^2 and (0 - 3)^2


def golden_compares_at_the_teachers_size(cls: type[Path]) -> None:
    # The student's (2, 6) alone, enlarged to (2, 2, 6, 6), against (2, 2, 2, 6): squares (0, 0, 16, 0), mean 4.
    path = plain(connect(cls(), [(1, 1, 2)], [(1, 1, 4)]))
    path.levels[key("s0")].attention.bias.data = torch.tensor([100.0, -100.0])
    loss = path({"s0": row(2.0, 6.0)}, path.target({"t0": row(2.0, 2.0, 2.0, 6.0)}), batch_of(1))["s0"]
    torch.testing.assert_close(loss, torch.tensor(4.0))


def golden_contexts(cls: type[Path]) -> None:
    # One place of 8 x 8 differs by 64: mean square 64.  Pooled to 4 x 4 by 16 in one place of 16: 16.  To 2 x 2 by 4 in
    # one of 4: 4.  To 1 x 1 by 1: 1.  (64 + 16/2 + 4/4 + 1/8) / (1 + 1/2 + 1/4 + 1/8) = 73.125 / 1.875 = 39.
    # Of 2 x 2, one place by 4: mean square 4, pooled to 1 x 1 by 1: (4 + 1/2) / (3/2) = 3.
    # Of 4 x 4, one place by 16: 16, pooled to 2 x 2 by 4: 4, to 1 x 1 by 1: (16 + 4/2 + 1/4) / (7/4) = 73/7.
    path = connect(cls(), [(1, 8, 8)], [(1, 8, 8)])
    for size, difference, wanted in ((8, 64.0, 39.0), (2, 4.0, 3.0), (4, 16.0, 73 / 7)):
        student = torch.zeros(1, 1, size, size)
        student[0, 0, 1, 1] = difference
        torch.testing.assert_close(path.layer_loss("s0", student, torch.zeros_like(student)), torch.tensor(wanted))


def golden_common_width(cls: type[Path]) -> None:
    # That of the student's deepest features, and 512 where they have more.
    for channels, wanted in ((7, 7), (600, 512)):
        path = connect(cls(), [(3, 2, 2), (channels, 1, 1)], [(4, 2, 2), (5, 1, 1)])
        for layer, width in (("s0", 3), ("s1", channels), ("s1-pooled", channels)):
            assert path.levels[key(layer)].entry[0].weight.shape == (wanted, width, 1, 1)
        assert path.levels[key("s0")].exit[0].weight.shape == (4, wanted, 3, 3)


GOLDENS = {
    "ReviewKD": (
        golden_fusion,
        golden_attention_looks_at_both_maps,
        golden_last_convolution_sees_neighbours,
        golden_enlarges_by_neighbours,
        golden_compares_at_the_teachers_size,
        golden_contexts,
        golden_common_width,
    )
}


def reference(path: Path, student: dict[str, Tensor], teacher: dict[str, Tensor]) -> dict[str, float]:
    """Level by level from the deepest, pixel by pixel; maps are ``[batch][channel][row][column]``."""
    losses, fused = {}, None
    for number, pair in enumerate(reversed(path.pairs)):
        level = path.levels[key(pair.layer)]
        own, wanted = student[pair.student].double().tolist(), teacher[pair.teacher].double().tolist()
        if number == 0:
            own, wanted = ([[[[_mean(channel)]] for channel in maps] for maps in side] for side in (own, wanted))
        maps = _norm(level.entry[1], _convolve(own, level.entry[0].weight.double().tolist()))
        if fused is not None:
            deeper = _nearest(fused, len(maps[0][0]), len(maps[0][0][0]))
            both = [one + other for one, other in zip(maps, deeper, strict=True)]
            scores = _convolve(both, level.attention.weight.double().tolist())
            bias = level.attention.bias.double().tolist()
            maps = [
                [
                    [
                        [
                            a / (1 + math.exp(-score[0][y][x] - bias[0]))
                            + b / (1 + math.exp(-score[1][y][x] - bias[1]))
                            for x, (a, b) in enumerate(zip(*rows, strict=True))
                        ]
                        for y, rows in enumerate(zip(*channels, strict=True))
                    ]
                    for channels in zip(one, other, strict=True)
                ]
                for one, other, score in zip(maps, deeper, scores, strict=True)
            ]
        fused = _nearest(maps, len(wanted[0][0]), len(wanted[0][0][0]))
        reviewed = _norm(level.exit[1], _convolve(fused, level.exit[0].weight.double().tolist()))
        losses[pair.layer] = _context_loss(reviewed, wanted)
    return {pair.layer: losses[pair.layer] for pair in path.pairs}


def _mean(channel: list[list[float]]) -> float:
    return sum(map(sum, channel)) / (len(channel) * len(channel[0]))


def _convolve(batch: Any, weights: Any) -> Any:
    """Convolve with an odd kernel, zeros around the map."""
    reach = len(weights[0][0]) // 2
    height, width = len(batch[0][0]), len(batch[0][0][0])

    def at(maps: Any, kernel: Any, row: int, column: int) -> float:
        return sum(
            kernel[c][dy][dx] * maps[c][row + dy - reach][column + dx - reach]
            for c in range(len(maps))
            for dy in range(2 * reach + 1)
            for dx in range(2 * reach + 1)
            if 0 <= row + dy - reach < height and 0 <= column + dx - reach < width
        )

    return [
        [[[at(maps, kernel, row, column) for column in range(width)] for row in range(height)] for kernel in weights]
        for maps in batch
    ]


def _norm(norm: nn.BatchNorm2d, batch: Any) -> Any:
    result = [[None] * len(batch[0]) for _ in batch]
    for channel in range(len(batch[0])):
        values = [value for maps in batch for line in maps[channel] for value in line]
        mean, variance = norm.running_mean[channel].item(), norm.running_var[channel].item()
        if norm.training and len(values) > 1:
            mean = sum(values) / len(values)
            variance = sum((value - mean) ** 2 for value in values) / len(values)
        scale = norm.weight[channel].item() / math.sqrt(variance + norm.eps)
        for sample, maps in enumerate(batch):
            result[sample][channel] = [
                [scale * (value - mean) + norm.bias[channel].item() for value in line] for line in maps[channel]
            ]
    return result


def _nearest(batch: Any, height: int, width: int) -> Any:
    return [
        [
            [
                [channel[y * len(channel) // height][x * len(channel[0]) // width] for x in range(width)]
                for y in range(height)
            ]
            for channel in maps
        ]
        for maps in batch
    ]


def _context_loss(batch: Any, wanted: Any) -> float:
    height, width = len(wanted[0][0]), len(wanted[0][0][0])
    sizes = [(height, width)] + [(size, size) for size in (4, 2, 1) if size < height and size < width]
    total = weights = 0.0
    for number, size in enumerate(sizes):
        squares = [
            (_window_mean(one, row, column, *size) - _window_mean(other, row, column, *size)) ** 2
            for maps in zip(batch, wanted, strict=True)
            for one, other in zip(*maps, strict=True)
            for row in range(size[0])
            for column in range(size[1])
        ]
        total += sum(squares) / len(squares) / 2**number
        weights += 1 / 2**number
    return total / weights


def _window_mean(channel: Any, row: int, column: int, height: int, width: int) -> float:
    values = [
        channel[y][x]
        for y in range(row * len(channel) // height, -(-(row + 1) * len(channel) // height))
        for x in range(column * len(channel[0]) // width, -(-(column + 1) * len(channel[0]) // width))
    ]
    return sum(values) / len(values)


def test_contexts_of_maps_that_are_no_multiple() -> None:
    case = make_case("ReviewKD", student=((2, 7, 9), (3, 5, 3)), teacher=((3, 7, 9), (2, 6, 5)))
    wanted = reference(case.path, case.student, case.teacher)
    assert {layer: loss.item() for layer, loss in case.losses().items()} == pytest.approx(wanted, rel=1e-9)


def test_zero_where_the_review_says_what_the_teacher_says() -> None:
    path = connect(ReviewKD(), [(3, 8, 8), (4, 4, 4)], [(2, 8, 8), (5, 4, 4)])
    for pair in path.pairs:  # what a norm without scale says is its shift, everywhere
        nn.init.zeros_(path.levels[key(pair.layer)].exit[1].weight)
        nn.init.constant_(path.levels[key(pair.layer)].exit[1].bias, 0.5)
    teacher = {"t0": torch.full((2, 2, 8, 8), 0.5), "t1": torch.full((2, 5, 4, 4), 0.5)}
    losses = path({"s0": torch.randn(2, 3, 8, 8), "s1": torch.randn(2, 4, 4, 4)}, path.target(teacher), batch_of(2))
    assert [loss.item() for loss in losses.values()] == pytest.approx([0, 0, 0], abs=1e-12)


def test_deeper_stages_teach_shallow_ones_and_not_the_other_way_round() -> None:
    case = make_case("ReviewKD")
    for value in case.student.values():
        value.requires_grad_()
    losses = case.losses()
    for layer, moved in (("s0", ["s0", "s1"]), ("s1", ["s1"]), ("s1-pooled", ["s1"])):
        taps = [case.student["s0"], case.student["s1"]]
        found = torch.autograd.grad(losses[layer], taps, retain_graph=True, allow_unused=True)
        assert [name for name, value in zip(("s0", "s1"), found, strict=True) if value is not None] == moved


def test_stages_are_read_before_their_activation_and_averages_behind_it() -> None:
    sample = torch.randn(2, 3, 16, 16)
    student, teacher = (
        probe(model(num_classes=4, width=4), sample, lambda output: output) for model in (ResNet8, ResNet14)
    )
    path = ReviewKD()
    path.connect(student, teacher)
    *stages, last = path.pairs
    assert [pair.layer for pair in stages] == [stage.name for stage in student.stages]
    for pair, own, wanted in zip(stages, student.stages, teacher.stages, strict=True):
        assert (pair.student, pair.teacher) == (
            student.before_activation(own.name).name,
            teacher.before_activation(wanted.name).name,
        )
        assert pair.student != own.name
    assert (last.student, last.teacher) == (student.last.name, teacher.last.name)
    assert path.layers[-1] == f"{student.last.name}-pooled"


def test_convolutions_start_uniform_within_the_bound_of_the_authors() -> None:
    torch.manual_seed(0)
    path = connect(ReviewKD(), [(16, 4, 4)], [(32, 4, 4)])
    level = path.levels[key("s0")]
    for weight, fan_in in ((level.entry[0].weight, 16), (level.exit[0].weight, 9 * 16)):
        bound = math.sqrt(3 / fan_in)  # of variance 1 / fan_in: Kaiming's with slope 1
        assert 0.95 * bound < weight.abs().max() <= bound
        assert weight.var().item() == pytest.approx(1 / fan_in, rel=0.15)


MUTANTS = {
    "ReviewKD": [
        ("MAX_CHANNELS = 512", "MAX_CHANNELS = 256"),
        ("min(MAX_CHANNELS, student[deepest.student].channels)", "student[deepest.student].channels"),
        ("CONTEXTS = (4, 2, 1)", "CONTEXTS = (4, 2)"),
        ("CONTEXTS = (4, 2, 1)", "CONTEXTS = (1, 2, 4)"),
        ("weight /= 2", "weight /= 4"),
        ("return loss / weights", "return loss"),
        ("if size < min", "if size <= min"),
        ("difference.square().mean(), 1.0, 1.0", "difference.abs().mean(), 1.0, 1.0"),
        ("student - target", "student + target"),
        ("F.adaptive_avg_pool2d", "F.adaptive_max_pool2d"),
        ('mode="nearest"', 'mode="bilinear"'),
        ("own * weights[:, :1]", "own * weights[:, 1:]"),
        ("+ _resize(deeper, size) *", "- _resize(deeper, size) *"),
        ("torch.sigmoid(scores)", "torch.softmax(scores, dim=1)"),
        ("chunk(2, dim=1)", "flip(1).chunk(2, dim=1)"),
        ("features.mean(dim=(2, 3), keepdim=True)", "features.amax(dim=(2, 3), keepdim=True)"),
        ("teacher.mean(dim=(2, 3), keepdim=True)", "teacher.amax(dim=(2, 3), keepdim=True)"),
        ("return fused, self.exit(fused)", "return self.exit(fused), self.exit(fused)"),
        ("self.exit(fused)", "self.exit[1](fused)"),
    ],
}
"""Changes of the source that a golden value notices; see test_mutants."""
