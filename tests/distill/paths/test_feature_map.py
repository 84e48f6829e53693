from __future__ import annotations

import pytest
import torch
from naive_maps import naive_adapter
from path_cases import batch_of, connect, identity_adapters, make_case
from torch import Tensor

from distill.paths import Path
from distill.paths.base import key


def golden_difference_of_means(cls: type[Path]) -> None:
    # First sample.  Student: two positions, means (1, -2).  Teacher: four positions, means (3, 1).
    # Differences (-2, -3), squares 4 and 9, mean over channels 6.5.  Second sample: equal means, 0.  Batch: 3.25.
    student = torch.tensor([[[[-1.0, 3.0]], [[-2.0, -2.0]]], [[[1.0, 1.0]], [[0.0, 4.0]]]])
    teacher = torch.tensor(
        [[[[0.0, 6.0], [2.0, 4.0]], [[4.0, 0.0], [0.0, 0.0]]], [[[4.0, 0.0], [0.0, 0.0]], [[2.0, 2.0], [2.0, 2.0]]]]
    )
    path = identity_adapters(connect(cls(), [(2, 1, 2)], [(2, 2, 2)]))
    target = path.target({"t0": teacher})
    torch.testing.assert_close(target["s0"], torch.tensor([[3.0, 1.0], [1.0, 2.0]]))
    loss = path({"s0": student}, target, batch_of(2))["s0"]
    torch.testing.assert_close(loss, torch.tensor(3.25))


def golden_adapter_is_used(cls: type[Path]) -> None:
    # An adapter that doubles: mean 2 * 3 = 6 against 5: 1.
    path = identity_adapters(connect(cls(), [(1, 1, 1)], [(1, 1, 1)]))
    for parameter in path.adapters[key("s0")].convolution.parameters():
        parameter.data.mul_(2)
    target = path.target({"t0": torch.full((1, 1, 1, 1), 5.0)})
    loss = path({"s0": torch.full((1, 1, 1, 1), 3.0)}, target, batch_of(1))["s0"]
    torch.testing.assert_close(loss, torch.tensor(1.0))


GOLDENS = {"FeatureMap": (golden_difference_of_means, golden_adapter_is_used)}


def reference(path: Path, student: dict[str, Tensor], teacher: dict[str, Tensor]) -> dict[str, float]:
    """Channel by channel: two means, their squared difference."""
    losses = {}
    for pair in path.pairs:
        adapted = naive_adapter(path.adapters[key(pair.layer)], student[pair.student])
        squares = []
        for one, other in zip(adapted, teacher[pair.teacher].tolist(), strict=True):
            for a, b in zip(one, other, strict=True):
                gap = sum(map(sum, a)) / (len(a) * len(a[0])) - sum(map(sum, b)) / (len(b) * len(b[0]))
                squares.append(gap * gap)
        losses[pair.layer] = sum(squares) / len(squares)
    return losses


def test_where_a_channel_responds_does_not_count() -> None:
    case = make_case("FeatureMap")
    before = case.loss()
    case.student = {name: maps.flip(-1) for name, maps in case.student.items() if name}
    shuffled = case.path(case.student, case.target(), batch_of(3))
    assert torch.stack(list(shuffled.values())).sum().item() == pytest.approx(before.item(), rel=1e-10)


MUTANTS = {
    "FeatureMap": [
        ("teacher.mean(dim=(2, 3))", "teacher.amax(dim=(2, 3))"),
        ("teacher.mean(dim=(2, 3))", "teacher.sum(dim=(2, 3))"),
        ("teacher.mean(dim=(2, 3))", "-teacher.mean(dim=(2, 3))"),
        ("self.adapter(layer).means(student)", "self.adapt(layer, student).sum(dim=(2, 3))"),
        ("self.adapter(layer).means(student)", "self.adapt(layer, student).square().mean(dim=(2, 3)).sqrt()"),
        ("self.adapter(layer).means(student)", "student.mean(dim=(2, 3))"),
        ("F.mse_loss(", "F.l1_loss("),
        (", target)", ", target, reduction='sum')"),
    ],
}
"""Changes of the source that a golden value notices; see test_mutants."""
