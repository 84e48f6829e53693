from __future__ import annotations

import math

import pytest
import torch
from naive_maps import samples, unit_attention
from path_cases import batch_of, connect, make_case
from torch import Tensor

from distill.paths import AttentionTransfer, AttentionTransferNorm, Path
from distill.targets import path_column


def golden_distance_of_unit_maps(cls: type[Path]) -> None:
    # First sample.  Student energy ((-1)^2 + sqrt2^2, 2^2 + 0) = (3, 4), length 5, unit map (.6, .8).
    # Teacher energy (2^2 + 0, (-1)^2 + sqrt2^2) = (4, 3), unit map (.8, .6).  Difference (-.2, .2), length sqrt(.08).
    # Second sample: flat maps at two scales, 0.  Mean over the batch: sqrt(.08) / 2 = sqrt(.02).
    root = math.sqrt(2)
    student = torch.tensor([[[[-1.0, 2.0]], [[root, 0.0]]], [[[1.0, 1.0]], [[1.0, 1.0]]]])
    teacher = torch.tensor([[[[2.0, -1.0]], [[0.0, root]]], [[[3.0, 3.0]], [[-3.0, 3.0]]]])
    path = connect(cls(), [(2, 1, 2)], [(2, 1, 2)])
    target = path.target({"t0": teacher})
    torch.testing.assert_close(target["s0"], torch.tensor([[[4.0, 3.0]], [[18.0, 18.0]]]))
    loss = path({"s0": student}, target, batch_of(2))["s0"]
    torch.testing.assert_close(loss, torch.tensor(math.sqrt(0.02)), rtol=1e-5, atol=0)


def golden_two_rows(cls: type[Path]) -> None:
    # The student looks at the upper left, the teacher at the lower right: two unit vectors at a right angle, sqrt 2.
    student, teacher = torch.zeros(1, 1, 2, 2), torch.zeros(1, 1, 2, 2)
    student[0, 0, 0, 0], teacher[0, 0, 1, 1] = 3.0, -2.0
    path = connect(cls(), [(1, 2, 2)], [(1, 2, 2)])
    loss = path({"s0": student}, path.target({"t0": teacher}), batch_of(1))["s0"]
    torch.testing.assert_close(loss, torch.tensor(math.sqrt(2)), rtol=1e-6, atol=0)


def golden_pools_the_larger_map(cls: type[Path]) -> None:
    # Teacher energy [[1, 5], [7, 1]], columns averaged: (4, 3), unit (.8, .6).  Student (3, 4): (.6, .8).  sqrt(.08).
    # (Pooling after normalising would give (4, 3)/sqrt(76); pooling by maximum (7, 5).)
    student = torch.tensor([[[[math.sqrt(3), 2.0]]]])
    teacher = torch.tensor([[[[1.0, math.sqrt(5)], [math.sqrt(7), 1.0]]]])
    path = connect(cls(), [(1, 1, 2)], [(1, 2, 2)])
    loss = path({"s0": student}, path.target({"t0": teacher}), batch_of(1))["s0"]
    torch.testing.assert_close(loss, torch.tensor(math.sqrt(0.08)), rtol=1e-5, atol=0)
    swapped = connect(cls(), [(1, 2, 2)], [(1, 1, 2)])
    loss = swapped({"s0": teacher}, swapped.target({"t0": student}), batch_of(1))["s0"]
    torch.testing.assert_close(loss, torch.tensor(math.sqrt(0.08)), rtol=1e-5, atol=0)


def golden_epsilon(cls: type[Path]) -> None:
    # Student energy (3e-6, 4e-6): length 5e-6, plus 1e-6: divided by 6e-6: (1/2, 2/3).  Teacher silent: (0, 0).
    # Length of (1/2, 2/3): 5/6.
    student = torch.tensor([[[[1.5e-6, 2e-6]], [[1.5e-6, 2e-6]]]], dtype=torch.float64).sqrt()
    path = connect(cls(), [(2, 1, 2)], [(2, 1, 2)])
    loss = path({"s0": student}, path.target({"t0": torch.zeros(1, 2, 1, 2).double()}), batch_of(1))["s0"]
    torch.testing.assert_close(loss, torch.tensor(5 / 6, dtype=torch.float64))


def golden_slope(cls: type[Path]) -> None:
    # Energy (3^2 + 2^2, (-1)^2 + 2^2) = (13, 5); the teacher looks at the first place alone, (1, 0).  With c = E1 / |E|
    # and s = E2 / |E| the loss is the root of (1 - c)^2 + s^2 = 2 (1 - c), all but for the 1e-6, and its slope is that
    # of 1 - c divided by the loss.  d(1 - c) = -E2 (E2 dE1 - E1 dE2) / |E|^3, and dE = 2 f df.
    student = torch.tensor([[[[3.0, -1.0]], [[2.0, 2.0]]]], dtype=torch.float64, requires_grad=True)
    teacher = torch.tensor([[[[1.0, 0.0]]]], dtype=torch.float64)
    path = connect(cls(), [(2, 1, 2)], [(1, 1, 2)])
    path({"s0": student}, path.target({"t0": teacher}), batch_of(1))["s0"].backward()
    length = math.sqrt(13**2 + 5**2)
    factor = 2 * 5 / length**3 / math.sqrt(2 * (1 - 13 / length))
    wanted = torch.tensor([[[[3.0 * -5, -1.0 * 13]], [[2.0 * -5, 2.0 * 13]]]], dtype=torch.float64) * factor
    torch.testing.assert_close(student.grad, wanted, rtol=1e-5, atol=0)


def golden_equality(cls: type[Path]) -> None:
    # Nothing apart: the loss is 0, and its slope counts as 0, where that of a root is infinite.
    features = torch.tensor([[[[3.0, -1.0]], [[2.0, 2.0]]]], requires_grad=True)
    path = connect(cls(), [(2, 1, 2)], [(2, 1, 2)])
    loss = path({"s0": features}, path.target({"t0": features}), batch_of(1))["s0"]
    loss.backward()
    assert loss.item() == 0
    assert features.grad is not None
    assert (features.grad == 0).all()


GOLDENS = {
    "AttentionTransferNorm": (
        golden_distance_of_unit_maps,
        golden_two_rows,
        golden_pools_the_larger_map,
        golden_epsilon,
        golden_slope,
        golden_equality,
    )
}


def reference(path: Path, student: dict[str, Tensor], teacher: dict[str, Tensor]) -> dict[str, float]:
    """Sample by sample: two unit maps, the root of their squared differences."""
    losses = {}
    for layer, pairs in samples(path, student, teacher).items():
        maps = [unit_attention(*pair) for pair in pairs]
        lengths = [math.sqrt(sum((a - b) ** 2 for a, b in zip(one, other, strict=True))) for one, other in maps]
        losses[layer] = sum(lengths) / len(lengths)
    return losses


def test_the_square_of_one_sample_is_the_other_form_times_the_positions() -> None:
    shapes = {"student": [(3, 4, 5)], "teacher": [(6, 4, 5)], "batch_size": 1}
    norm, mean = (make_case(name, **shapes).loss().item() for name in ("AttentionTransferNorm", "AttentionTransfer"))
    assert norm**2 == pytest.approx(20 * mean, rel=1e-12)


def test_scale_sign_and_width_of_the_features_do_not_count() -> None:
    features = torch.randn(2, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    path = connect(AttentionTransferNorm(), [(6, 4, 4)], [(3, 4, 4)])
    loss = path({"s0": -5 * torch.cat([features, features], dim=1)}, path.target({"t0": features}), batch_of(2))["s0"]
    assert loss.item() == pytest.approx(0, abs=1e-6)
    assert not list(path.parameters())


def test_both_forms_share_a_stored_target() -> None:
    shapes = [(3, 4, 4)], [(5, 4, 4)]
    one, other = (connect(cls(), *shapes) for cls in (AttentionTransferNorm, AttentionTransfer))
    assert path_column("one", one).digest == path_column("other", other).digest


BASE = "distill.paths.attention"

MUTANTS = {
    "AttentionTransferNorm": [
        ("student - teacher", "student + teacher"),
        ("student - teacher", "0 * student + teacher"),
        ("vector_norm(student - teacher, dim", "vector_norm(student - teacher, 1, dim"),
        ("dim=(1, 2))  # [batch]", "dim=1)  # [batch]"),
        ("dim=(1, 2))  # [batch]", "dim=(1, 2)).square()  # [batch]"),
        ("torch.linalg.vector_norm(student - teacher, dim=(1, 2))", "(student - teacher).square().sum((1, 2)).sqrt()"),
        ("distance.mean()", "distance.sum()"),
        ("distance.mean()", "distance.square().mean().sqrt()"),
        ("distance.mean()", "distance.mean() / 2"),
        ("norm.square()", "norm", BASE),
        ("pooled_alike(_energy(student), target)", "pooled_alike(_unit(_energy(student)), _unit(target))", BASE),
        ("energy / (norm + EPSILON)", "energy / norm.clamp_min(EPSILON)", BASE),
        ("2 * gradients[0]", "gradients[0]", BASE),
        ("EPSILON = 1e-6", "EPSILON = 1e-8", BASE),
    ],
}
"""Changes of the source that a golden value notices; see test_mutants."""
