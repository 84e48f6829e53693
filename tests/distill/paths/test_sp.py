from __future__ import annotations

import math

import pytest
import torch
from path_cases import Case, connect, make_case
from point_cases import inner, loss_of_connected, slopes
from torch import Tensor

from distill.paths import SP, Path


def golden_two_images(cls: type[Path]) -> None:
    # Student rows (1, 0) and (1, 1): G = (1, 1; 1, 2), rows of unit length (1, 1) / sqrt2 and (1, 2) / sqrt5.
    # Teacher rows (1, 0) and (0, 3): G = (1, 0; 0, 9), rows (1, 0) and (0, 1).
    # First row: (1 - 1/sqrt2)^2 + 1/2 = 2 - sqrt2.  Second: 1/5 + (1 - 2/sqrt5)^2 = 2 - 4/sqrt5.  Over 2^2 pairs.
    path = connect(cls(), [(1, 1, 2)], [(1, 1, 2)])
    student, teacher = torch.tensor([[1.0, 0, 1, 1], [1.0, 0, 0, 3]], dtype=torch.float64).reshape(2, 2, 1, 1, 2)
    loss = loss_of_connected(path, student, teacher)
    assert loss.item() == pytest.approx((4 - math.sqrt(2) - 4 / math.sqrt(5)) / 4, rel=1e-12)


def golden_channels_and_positions(cls: type[Path]) -> None:
    # The same rows, of the student over two channels, of the teacher over two channels and two positions:
    # (1, 0, 0, 0) and (0, 1, 2, 2), whose G is (1, 0; 0, 9) again.  The target is the rows.
    path = connect(cls(), [(2, 1, 1)], [(2, 2, 1)])
    student = torch.tensor([[1.0, 0], [1, 1]], dtype=torch.float64).reshape(2, 2, 1, 1)
    rows = torch.tensor([[1.0, 0, 0, 0], [0, 1, 2, 2]], dtype=torch.float64)
    teacher = rows.reshape(2, 2, 2, 1)
    assert torch.equal(path.target({"t0": teacher})["s0"], rows)
    loss = loss_of_connected(path, student, teacher)
    assert loss.item() == pytest.approx((4 - math.sqrt(2) - 4 / math.sqrt(5)) / 4, rel=1e-12)


def golden_short_row(cls: type[Path]) -> None:
    # One image: G = 5e-13, divided by 1e-12: 1/2.  The teacher's 1: (1/2 - 1)^2 = 1/4.
    path = connect(cls(), [(1, 1, 1)], [(1, 1, 1)])
    student, teacher = torch.tensor([5e-13, 4.0], dtype=torch.float64).sqrt().reshape(2, 1, 1, 1, 1)
    assert loss_of_connected(path, student, teacher).item() == pytest.approx(0.25)


def golden_deepest_features(cls: type[Path]) -> None:
    path = connect(cls(), [(2, 4, 4), (3, 2, 2)], [(5, 4, 4), (6, 2, 2)])
    assert [(pair.student, pair.teacher) for pair in path.pairs] == [("s1", "t1")]


def golden_slope(cls: type[Path]) -> None:
    # The gradient along a direction is the difference of the loss at both sides, in either memory layout.
    student, teacher = torch.randn(
        2, 3, 2, 2, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0)
    ).unbind()
    path = connect(cls(), [(2, 2, 2)], [(2, 2, 2)])
    for layout in (torch.contiguous_format, torch.channels_last):
        found, wanted = slopes(path, student.contiguous(memory_format=layout), teacher)
        assert found == pytest.approx(wanted, rel=1e-6)


GOLDENS = {
    "SP": (
        golden_two_images,
        golden_channels_and_positions,
        golden_short_row,
        golden_deepest_features,
        golden_slope,
    )
}


def reference(path: Path, student: dict[str, Tensor], teacher: dict[str, Tensor]) -> dict[str, float]:
    """Pair by pair of images: the inner product over the length of its row, in both models."""
    losses = {}
    for pair in path.pairs:
        likeness = []
        for maps in (student[pair.student], teacher[pair.teacher]):
            rows = [[v for channel in sample for row in channel for v in row] for sample in maps.double().tolist()]
            gram = [[inner(one, other) for other in rows] for one in rows]
            likeness.append([[value / max(math.sqrt(inner(row, row)), 1e-12) for value in row] for row in gram])
        count = len(likeness[0])
        losses[pair.layer] = (
            sum((likeness[0][i][j] - likeness[1][i][j]) ** 2 for i in range(count) for j in range(count)) / count**2
        )
    return losses


def test_scale_and_rotation_of_the_rows_change_nothing() -> None:
    case = make_case("SP", student=[(3, 2, 2)], teacher=[(4, 2, 2)], batch_size=4)
    rotation, _ = torch.linalg.qr(torch.randn(12, 12, dtype=torch.float64, generator=torch.Generator().manual_seed(1)))
    turned = 5 * (case.student["s0"].flatten(1) @ rotation).reshape(case.student["s0"].shape)
    other = Case(case.path, {**case.student, "s0": turned}, case.teacher)
    torch.testing.assert_close(other.loss(), case.loss())
    shifted = Case(case.path, {**case.student, "s0": case.student["s0"] + 1}, case.teacher)
    assert not torch.isclose(shifted.loss(), case.loss())


def test_a_batch_of_one_costs_nothing() -> None:
    assert make_case("SP", batch_size=1).loss().item() == pytest.approx(0, abs=1e-30)


def test_the_target_is_the_whole_map_and_nothing_is_learned() -> None:
    case = make_case("SP")
    assert case.target()["s1"].shape == (3, 6 * 2 * 2)
    assert not list(case.path.parameters())
    assert SP.batch_dependent
    assert not SP().gather


def test_channels_last_rows_are_a_view() -> None:
    maps = torch.randn(2, 3, 4, 4).to(memory_format=torch.channels_last).requires_grad_()
    path = connect(SP(), [(3, 4, 4)], [(3, 4, 4)])
    seen = []
    path.together = lambda rows: seen.append(rows) or rows
    loss_of_connected(path, maps, torch.randn(2, 3, 4, 4))
    assert seen[0].data_ptr() == maps.data_ptr()


MUTANTS = {
    "SP": [
        ("teacher.flatten(1)", "teacher.mean(dim=(2, 3))"),
        ("maps.movedim(1, 3).flatten(1) if maps.stride(1) == 1 else maps.flatten(1)", "maps.mean(dim=(2, 3))"),
        ("F.normalize(gram, dim=1, eps=EPSILON)", "gram"),
        ("F.normalize(gram, dim=1, eps=EPSILON)", "gram / gram.norm()"),
        ("dim=1, eps", "dim=1, p=1, eps"),
        ("EPSILON = 1e-12", "EPSILON = 1e-6"),
        ("F.mse_loss(", "F.l1_loss("),
        ("self.together(target)))", "self.together(target)), reduction='sum')"),
        ("self.together(target)))", "self.together(-target)) * -1)"),
        ("return rows @ rows.mT", "return (rows @ rows.mT) ** 2"),
        ("(gradients[0] + gradients[0].mT)", "gradients[0]"),
        ("(gradients[0] + gradients[0].mT)", "(gradients[0] - gradients[0].mT)"),
        ("only_last = True", "only_last = False"),
    ]
}
"""Changes of the source that a golden value notices; see test_mutants."""
