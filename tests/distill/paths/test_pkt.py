from __future__ import annotations

import math

import pytest
import torch
from path_cases import Case, make_case
from point_cases import Points, inner, loss_between, means
from torch import Tensor

from distill.paths import PKT, Path

THREE: Points = [[3.0, 0], [3, 4], [0, 2]]
"""Cosines .6 between the first two, 0 between the first and the last, .8 between the last two."""
UNIFORM: Points = [[1.0, 0, 0], [0, 5, 0], [0, 0, 2]]
"""Cosines 0: each image has both others for neighbours alike."""


def golden_student_with_preferences(cls: type[Path]) -> None:
    # Likenesses (1 + cos) / 2: .8, .5, .9, so q is (8, 5) / 13, (8, 9) / 17 and (5, 9) / 14.  The teacher's p is 1/2.
    # A row costs 1/2 log(1/2 / q1) + 1/2 log(1/2 / q2) = -1/2 log(4 q1 q2).  Mean over three rows.
    rows = [4 * 8 * 5 / 13**2, 4 * 8 * 9 / 17**2, 4 * 5 * 9 / 14**2]
    wanted = sum(-math.log(row) / 2 for row in rows) / 3
    assert loss_between(cls(), THREE, UNIFORM).item() == pytest.approx(wanted, rel=1e-12)


def golden_teacher_with_preferences(cls: type[Path]) -> None:
    # The other way round: p1 log(2 p1) + p2 log(2 p2).
    rows = [(8 / 13, 5 / 13), (8 / 17, 9 / 17), (5 / 14, 9 / 14)]
    wanted = sum(p * math.log(2 * p) for row in rows for p in row) / 3
    assert loss_between(cls(), UNIFORM, THREE).item() == pytest.approx(wanted, rel=1e-12)


def golden_opposite(cls: type[Path]) -> None:
    # 1, -2 and 3 on a line: likeness 0 between the second and the others, which counts as 1e-7; 1 between the others.
    # First and last row: (1e-7, 1) / (1 + 1e-7), against the teacher's halves.  The second row: halves.
    wanted = 2 / 3 * -math.log(4 * 1e-7 / (1 + 1e-7) ** 2) / 2
    assert loss_between(cls(), [[1.0], [-2], [3]], UNIFORM).item() == pytest.approx(wanted, rel=1e-12)


def golden_short(cls: type[Path]) -> None:
    # The first image's (5e-8, 0) is divided by 1e-7, so that its cosine with (1, 0) counts as 1/2: likeness 3/4.
    # With (0, 1): 1/2, as have the last two.  q: (3, 2) / 5, (3, 2) / 5, (1, 1) / 2.
    wanted = 2 / 3 * -math.log(4 * 6 / 25) / 2
    assert loss_between(cls(), [[5e-8, 0], [1, 0], [0, 1]], UNIFORM).item() == pytest.approx(wanted, rel=1e-6)


GOLDENS = {
    "PKT": (golden_student_with_preferences, golden_teacher_with_preferences, golden_opposite, golden_short),
}


def reference(path: Path, student: dict[str, Tensor], teacher: dict[str, Tensor]) -> dict[str, float]:
    """Image by image: how its likenesses with the others divide among them, in both models."""
    losses = {}
    for pair in path.pairs:
        q, p = (_neighbours(means(maps)) for maps in (student[pair.student], teacher[pair.teacher]))
        rows = [sum(b * math.log(b / a) for a, b in zip(*both, strict=True)) for both in zip(q, p, strict=True)]
        losses[pair.layer] = sum(rows) / len(rows)
    return losses


def _neighbours(points: Points) -> list[list[float]]:
    unit = [[value / max(math.sqrt(inner(point, point)), 1e-7) for value in point] for point in points]
    rows = []
    for i, one in enumerate(unit):
        likeness = [max((1 + inner(one, other)) / 2, 1e-7) for j, other in enumerate(unit) if j != i]
        rows.append([value / sum(likeness) for value in likeness])
    return rows


def test_rotation_and_lengths_change_nothing() -> None:
    case = make_case("PKT", batch_size=4)
    generator = torch.Generator().manual_seed(1)
    rotation, _ = torch.linalg.qr(torch.randn(5, 5, dtype=torch.float64, generator=generator))
    lengths = torch.rand(4, 1, 1, 1, dtype=torch.float64, generator=generator) + 0.5
    turned = lengths * torch.einsum("dc,bchw->bdhw", rotation, case.student["s1"])
    other = Case(case.path, {**case.student, "s1": turned}, case.teacher)
    torch.testing.assert_close(other.loss(), case.loss())
    shifted = Case(case.path, {**case.student, "s1": case.student["s1"] + 1}, case.teacher)
    assert not torch.isclose(shifted.loss(), case.loss())


@pytest.mark.parametrize("batch_size", [1, 2])
def test_fewer_than_three_images_cost_nothing(batch_size: int) -> None:
    case = make_case("PKT", batch_size=batch_size)
    features = case.student["s1"].requires_grad_()
    loss = case.loss()
    (gradient,) = torch.autograd.grad(loss, [features])
    assert loss.item() == pytest.approx(0, abs=1e-15)
    assert gradient.abs().max() == 0


def test_it_is_the_mean_over_images_whatever_their_number() -> None:
    """Twice the images at the same places cost about as much; a mean over all pairs would cost half."""
    once, twice = (make_case("PKT", batch_size=64, seed=seed) for seed in (0, 0))
    for side in (twice.student, twice.teacher):
        side.update({tap: torch.cat([value, value]) for tap, value in side.items()})
    assert twice.loss().item() == pytest.approx(once.loss().item(), rel=0.1)


def test_nothing_is_learned_and_each_worker_is_alone_unless_told() -> None:
    assert not list(make_case("PKT").path.parameters())
    assert PKT.batch_dependent
    assert not PKT().gather


MUTANTS = {
    "PKT": [
        ("divergence(_log_neighbours(self.together(target)), log_q)", "divergence(log_q, _log_neighbours(target))"),
        (", log_q)", ", log_q) / len(student)"),
        ("_parts(teacher, student).sum() / count", "_parts(teacher, student).sum()", "distill.paths.softened"),
        ("F.normalize(rows, dim=1, eps=EPSILON)", "rows"),
        ("F.normalize(rows, dim=1,", "F.normalize(rows, dim=0,"),
        ("F.normalize(rows, dim=1,", "F.normalize(rows, p=1, dim=1,"),
        ("F.normalize(rows, dim=1, eps=EPSILON)", "F.normalize(rows, dim=1)"),
        ("(1 + unit @ unit.mT)", "(1 - unit @ unit.mT)"),
        ("(1 + unit @ unit.mT) / 2", "(unit @ unit.mT)"),
        ("likeness.log().masked_fill(itself, torch.finfo(rows.dtype).min)", "likeness.log()"),
        ("likeness.log()", "likeness"),
        ("EPSILON = 1e-7", "EPSILON = 1e-6"),
        ("self.together(pooled(student))", "self.together(student[:, :, 0, 0])"),
    ]
}
"""Changes of the source that a golden value notices; see test_mutants."""
