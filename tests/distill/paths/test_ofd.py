from __future__ import annotations

from pathlib import Path as FilePath
from typing import Any

import pytest
import torch
import torch.multiprocessing
from naive_maps import Maps, naive_adapter, naive_pooled_alike, positions
from on_ranks import on_ranks
from path_cases import batch_of, connect, identity_adapters, make_case
from test_ab import probe_with_relu
from torch import Tensor

from distill.paths import OFD, Path
from distill.paths.base import key
from distill.taps import TapPair


def looking(path: Path) -> Path:
    """Let adapters be the identity while the margins learn from what they see."""
    identity_adapters(path)
    path.margins.train()
    return path


def loss_of(path: Path, student: Any, teacher: Any) -> float:
    """Return the loss between maps `[batch][channel][row][column]`."""
    one, other = (torch.tensor(maps, dtype=torch.float64) for maps in (student, teacher))
    loss: float = path.double()({"s0": one}, path.target({"t0": other}), batch_of(len(one)))["s0"].item()
    return loss


def golden_without_negative_values(cls: type[Path]) -> None:
    # Nothing was seen yet: margin 0.  The teacher responds with 2: (3 - 2)^2.  It is silent at -1, aim 0: the student's
    # -4 is silent too: 0.  Second sample: silent, but the student says .5: .25.  Silent, and 0: 0.  1.25 / 4.
    path = identity_adapters(connect(cls(), [(1, 1, 2)], [(1, 1, 2)]))
    assert loss_of(path, [[[[3.0, -4.0]]], [[[0.5, 0.0]]]], [[[[2.0, -1.0]]], [[[-2.0, -3.0]]]]) == 1.25 / 4


def golden_margin_of_the_batch(cls: type[Path]) -> None:
    # Negative values -1 and -3, mean -2; 0 is none.  Aims: max(-1, -2) = -1, max(-3, -2) = -2, 2, 0.
    # The student: -2 is below -1: 0.  0 is above -2: 4.  (1 - 2)^2.  -1 is below 0: 0.  5 / 4.
    path = looking(connect(cls(), [(1, 1, 4)], [(1, 1, 4)]))
    assert loss_of(path, [[[[-2.0, 0.0, 1.0, -1.0]]]], [[[[-1.0, -3.0, 2.0, 0.0]]]]) == pytest.approx(5 / 4)


def golden_margin_of_all_that_was_seen(cls: type[Path]) -> None:
    # After -1 and -3 comes -4: mean -8/3, the aim.  The student says 0 there: 64/9.  Its other values agree.
    path = looking(connect(cls(), [(1, 1, 4)], [(1, 1, 4)]))
    loss_of(path, [[[[-2.0, 0.0, 1.0, -1.0]]]], [[[[-1.0, -3.0, 2.0, 0.0]]]])
    assert loss_of(path, [[[[0.0, 1.0, 1.0, 1.0]]]], [[[[-4.0, 1.0, 1.0, 1.0]]]]) == pytest.approx(64 / 9 / 4)
    # In evaluation mode it stays, whatever comes: aim max(-8, -8/3), the student at 0.
    path.eval()
    for _ in range(2):
        assert loss_of(path, [[[[0.0, 1.0, 1.0, 1.0]]]], [[[[-8.0, 1.0, 1.0, 1.0]]]]) == pytest.approx(64 / 9 / 4)
    name = f"margins.{key('s0')}.negatives"
    assert name in path.state_dict()
    assert path.state_dict()[name].tolist() == [[-8.0], [3.0]]


def golden_margin_of_each_channel(cls: type[Path]) -> None:
    # Two samples.  First channel: -1 and -3: -2.  Second: -10 alone.  A student of zeros: the aims are -1, -2 and -10,
    # and 1 where the second sample responds: 1 + 4 + 100 + 1 of 4 values.
    path = looking(connect(cls(), [(2, 1, 1)], [(2, 1, 1)]))
    zeros = [[[[0.0]], [[0.0]]]] * 2
    assert loss_of(path, zeros, [[[[-1.0]], [[-10.0]]], [[[-3.0]], [[1.0]]]]) == pytest.approx(106 / 4)


def golden_pools_the_larger_map(cls: type[Path]) -> None:
    # The teacher's rows (1, -2) and (3, -6) averaged: (2, -4), margin -4.  The student says (1, -3): 1 and 1, mean 1.
    path = looking(connect(cls(), [(1, 1, 2)], [(1, 2, 2)]))
    assert loss_of(path, [[[[1.0, -3.0]]]], [[[[1.0, -2.0], [3.0, -6.0]]]]) == pytest.approx(1)
    # The other way round: the student's averages (2, -4), the teacher's (1, -3): 1, and -4 is below -3.
    path = looking(connect(cls(), [(1, 2, 2)], [(1, 1, 2)]))
    assert loss_of(path, [[[[1.0, -2.0], [3.0, -6.0]]]], [[[[1.0, -3.0]]]]) == pytest.approx(1 / 2)


def golden_adapter_is_used(cls: type[Path]) -> None:
    # An adapter that doubles: 2 * 3 = 6 against 5.
    path = identity_adapters(connect(cls(), [(1, 1, 1)], [(1, 1, 1)]))
    path.adapters[key("s0")].convolution.weight.data.mul_(2)
    assert loss_of(path, [[[[3.0]]]], [[[[5.0]]]]) == pytest.approx(1)


def golden_reads_before_the_activation(cls: type[Path]) -> None:
    path = cls()
    path.connect(probe_with_relu("s"), probe_with_relu("t"))
    assert path.pairs == (TapPair("s0.relu:input", "t0.relu:input", "s0"),)


GOLDENS = {
    "OFD": (
        golden_without_negative_values,
        golden_margin_of_the_batch,
        golden_margin_of_all_that_was_seen,
        golden_margin_of_each_channel,
        golden_pools_the_larger_map,
        golden_adapter_is_used,
        golden_reads_before_the_activation,
    )
}


def reference(path: Path, student: dict[str, Tensor], teacher: dict[str, Tensor]) -> dict[str, float]:
    """Value by value: the mean of all negative ones of the channel, the margin ReLU, the partial distance."""
    losses = {}
    for pair in path.pairs:
        other: Maps = teacher[pair.teacher].double().tolist()
        own = naive_adapter(path.adapters[key(pair.layer)], student[pair.student])
        own, other = naive_pooled_alike(own, other)
        margin = path.margins[key(pair.layer)]
        sums, numbers = margin.negatives.tolist()
        for b, c, y, x in positions(other):
            if margin.training and other[b][c][y][x] < 0:
                sums[c] += other[b][c][y][x]
                numbers[c] += 1
        total, count = 0.0, 0
        for b, c, y, x in positions(other):
            aim = max(other[b][c][y][x], sums[c] / numbers[c] if numbers[c] else 0.0)
            if not own[b][c][y][x] <= aim <= 0:
                total += (own[b][c][y][x] - aim) ** 2
            count += 1
        losses[pair.layer] = total / count
    return losses


def test_margins_are_the_mean_of_all_negative_values_of_the_training() -> None:
    case = make_case("OFD", student=[(3, 4, 4)], teacher=[(5, 4, 4)])
    generator = torch.Generator().manual_seed(0)
    seen = []
    for _ in range(5):
        case.teacher["t0"] = torch.randn(3, 5, 4, 4, generator=generator, dtype=torch.float64)
        seen.append(case.teacher["t0"])
        case.losses()
    case.path.eval()
    margin = case.path.margins[key("s0")](case.teacher["t0"])
    together = torch.cat(seen)
    wanted = [together[:, channel][together[:, channel] < 0].mean() for channel in range(5)]
    torch.testing.assert_close(margin, torch.stack(wanted), rtol=1e-12, atol=0)


def test_margins_of_a_normal_distribution_are_those_of_the_paper() -> None:
    """Of mean 0 and deviation s the expected negative value is -s * sqrt(2 / pi)."""
    case = make_case("OFD", student=[(2, 8, 8)], teacher=[(3, 8, 8)], batch_size=64)
    deviations = torch.tensor([0.5, 1.0, 3.0], dtype=torch.float64)
    case.teacher["t0"] = case.teacher["t0"] * deviations[:, None, None]
    case.losses()
    sums, numbers = case.path.margins[key("s0")].negatives
    torch.testing.assert_close(sums / numbers, -deviations * (2 / torch.pi) ** 0.5, rtol=0.05, atol=0)


def test_a_silent_student_pays_nothing_where_the_teacher_is_silent() -> None:
    teacher = -torch.rand(2, 3, 4, 4) - 0.1
    path = looking(connect(OFD(), [(3, 4, 4)], [(3, 4, 4)]))
    target = path.target({"t0": teacher})
    for depth in (5.0, 1e4):
        assert path({"s0": torch.full_like(teacher, -depth)}, target, batch_of(2))["s0"].item() == 0
    student = torch.zeros_like(teacher, requires_grad=True)
    path({"s0": student}, target, batch_of(2))["s0"].backward()
    assert (student.grad > 0).all()  # descent leads down, to the margin
    far = torch.full_like(teacher, -5, requires_grad=True)
    path({"s0": far}, target, batch_of(2))["s0"].backward()
    assert (far.grad == 0).all()


def test_sums_keep_their_digits_over_a_long_training() -> None:
    path = connect(OFD(), [(1, 2, 2)], [(1, 2, 2)])
    margin = path.margins[key("s0")]
    assert margin.negatives.dtype == torch.float64
    margin.negatives.copy_(torch.tensor([[-(2.0**31)], [2.0**31]]))
    margin(torch.full((1, 1, 1, 3), -1.0))
    assert margin.negatives[1].item() == 2**31 + 3


def work(rank: int) -> Tensor:
    path, teacher = two_ranks()
    for step in range(2):
        path.margins[key("s0")](teacher[step, 4 * rank : 4 * rank + 4])
    return path.margins[key("s0")].negatives


def two_ranks() -> tuple[Path, Tensor]:
    generator = torch.Generator().manual_seed(0)
    return connect(OFD(), [(2, 3, 3)], [(4, 3, 3)]), torch.randn(2, 8, 4, 3, 3, generator=generator)


def test_margins_are_those_of_all_ranks(tmp_path: FilePath) -> None:
    first, second = on_ranks(work, tmp_path)
    path, teacher = two_ranks()
    for step in range(2):
        path.margins[key("s0")](teacher[step])
    assert torch.equal(first, second)
    torch.testing.assert_close(first, path.margins[key("s0")].negatives)


MUTANTS = {
    "OFD": [
        ("torch.maximum(teacher, margin", "torch.minimum(teacher, margin"),
        ("torch.where(aim > 0, gap, F.relu(gap))", "gap"),
        ("torch.where(aim > 0, gap, F.relu(gap))", "F.relu(gap)"),
        ("torch.where(aim > 0, gap, F.relu(gap))", "torch.where(aim > 0, gap, torch.zeros_like(gap))"),
        ("torch.where(aim > 0, gap, F.relu(gap))", "torch.where(aim > 0, gap, F.relu(-gap))"),
        ("adapted - aim", "adapted - teacher"),
        ("adapted - aim", "adapted + aim"),
        (".square().mean()", ".abs().mean()"),
        (".square().mean()", ".square().sum()"),
        ("margin[:, None, None]", "-margin[:, None, None]"),
        ("margin[:, None, None]", "margin.mean()"),
        ("maps.clamp_max(0)", "maps"),
        ("(maps < 0)", "(maps <= 0)"),
        ("(maps < 0)", "(maps < 1)"),
        ("self.negatives +=", "self.negatives ="),
        ("if self.training:", "if True:"),
        ("self.negatives[1].clamp_min(1)", "self.negatives[1]"),
        ("dtype=torch.float64))", "dtype=torch.float64), persistent=False)"),
        ("self.adapt(layer, student)", "student"),
        ("before_activation = True", "before_activation = False"),
        ("F.adaptive_avg_pool2d", "F.adaptive_max_pool2d", "distill.paths.sizes"),
    ],
}
"""Changes of the source that a golden value notices; see test_mutants."""
