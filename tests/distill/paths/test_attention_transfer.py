from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from naive_maps import samples, unit_attention
from path_cases import batch_of, connect, make_case
from torch import Tensor

from distill.paths import AttentionTransfer, Path


def golden_unit_maps(cls: type[Path]) -> None:
    # First sample.  Student energy ((-1)^2 + sqrt2^2, 2^2 + 0) = (3, 4), length 5, unit map (.6, .8).
    # Teacher energy (2^2 + 0, (-1)^2 + sqrt2^2) = (4, 3), unit map (.8, .6).  Differences (-.2, .2), mean square .04.
    # Second sample: flat maps at two scales, 0.  Mean over the batch: .02.
    root = math.sqrt(2)
    student = torch.tensor([[[[-1.0, 2.0]], [[root, 0.0]]], [[[1.0, 1.0]], [[1.0, 1.0]]]])
    teacher = torch.tensor([[[[2.0, -1.0]], [[0.0, root]]], [[[3.0, 3.0]], [[-3.0, 3.0]]]])
    path = connect(cls(), [(2, 1, 2)], [(2, 1, 2)])
    target = path.target({"t0": teacher})
    torch.testing.assert_close(target["s0"], torch.tensor([[[4.0, 3.0]], [[18.0, 18.0]]]))
    loss = path({"s0": student}, target, batch_of(2))["s0"]
    torch.testing.assert_close(loss, torch.tensor(0.02), rtol=1e-5, atol=0)


def golden_pools_the_larger_map(cls: type[Path]) -> None:
    # Teacher energy [[1, 5], [7, 1]], columns averaged: (4, 3), unit (.8, .6).  Student (3, 4): (.6, .8).  Mean .04.
    # (Pooling after normalising would give (4, 3)/sqrt(76); pooling by maximum (7, 5).)
    student = torch.tensor([[[[math.sqrt(3), 2.0]]]])
    teacher = torch.tensor([[[[1.0, math.sqrt(5)], [math.sqrt(7), 1.0]]]])
    path = connect(cls(), [(1, 1, 2)], [(1, 2, 2)])
    loss = path({"s0": student}, path.target({"t0": teacher}), batch_of(1))["s0"]
    torch.testing.assert_close(loss, torch.tensor(0.04), rtol=1e-5, atol=0)
    swapped = connect(cls(), [(1, 2, 2)], [(1, 1, 2)])
    loss = swapped({"s0": teacher}, swapped.target({"t0": student}), batch_of(1))["s0"]
    torch.testing.assert_close(loss, torch.tensor(0.04), rtol=1e-5, atol=0)


def golden_pools_height_and_width_alike(cls: type[Path]) -> None:
    # The same numbers, turned: teacher rows averaged to (4, 3), student (3, 4).
    student = torch.tensor([[[[math.sqrt(3)], [2.0]]]])
    teacher = torch.tensor([[[[1.0, math.sqrt(7)], [math.sqrt(5), 1.0]]]])
    path = connect(cls(), [(1, 2, 1)], [(1, 2, 2)])
    loss = path({"s0": student}, path.target({"t0": teacher}), batch_of(1))["s0"]
    torch.testing.assert_close(loss, torch.tensor(0.04), rtol=1e-5, atol=0)


def golden_epsilon(cls: type[Path]) -> None:
    # Student energy (3e-6, 4e-6): length 5e-6, plus 1e-6: divided by 6e-6: (1/2, 2/3).  Teacher silent: (0, 0).
    # Squares (1/4, 4/9), mean 25/72.  (A mean over the 2 channels instead of the sum would give 2.5e-6 + 1e-6.)
    student = torch.tensor([[[[1.5e-6, 2e-6]], [[1.5e-6, 2e-6]]]], dtype=torch.float64).sqrt()
    path = connect(cls(), [(2, 1, 2)], [(2, 1, 2)])
    loss = path({"s0": student}, path.target({"t0": torch.zeros(1, 2, 1, 2).double()}), batch_of(1))["s0"]
    torch.testing.assert_close(loss, torch.tensor(25 / 72, dtype=torch.float64))


def golden_slope(cls: type[Path]) -> None:
    # Energy (3^2 + 2^2, (-1)^2 + 2^2) = (13, 5); the teacher looks at the first place alone, (1, 0).  The loss is half
    # of (1 - c)^2 + s^2, which is 1 - c, with c = E1 / |E| and s = E2 / |E|, all but for the 1e-6.
    # d(1 - c) = -E2 (E2 dE1 - E1 dE2) / |E|^3, and dE = 2 f df.
    student = torch.tensor([[[[3.0, -1.0]], [[2.0, 2.0]]]], dtype=torch.float64, requires_grad=True)
    teacher = torch.tensor([[[[1.0, 0.0]]]], dtype=torch.float64)
    path = connect(cls(), [(2, 1, 2)], [(1, 1, 2)])
    path({"s0": student}, path.target({"t0": teacher}), batch_of(1))["s0"].backward()
    factor = 2 * 5 / math.sqrt(13**2 + 5**2) ** 3
    wanted = torch.tensor([[[[3.0 * -5, -1.0 * 13]], [[2.0 * -5, 2.0 * 13]]]], dtype=torch.float64) * factor
    torch.testing.assert_close(student.grad, wanted, rtol=1e-5, atol=0)


GOLDENS = {
    "AttentionTransfer": (
        golden_unit_maps,
        golden_pools_the_larger_map,
        golden_pools_height_and_width_alike,
        golden_epsilon,
        golden_slope,
    )
}


def reference(path: Path, student: dict[str, Tensor], teacher: dict[str, Tensor]) -> dict[str, float]:
    """Pixel by pixel: energy, window means, length, squared difference."""
    losses = {}
    for layer, pairs in samples(path, student, teacher).items():
        squares = [(a - b) ** 2 for pair in pairs for a, b in zip(*unit_attention(*pair), strict=True)]
        losses[layer] = sum(squares) / len(squares)
    return losses


@pytest.mark.parametrize(
    ("student", "teacher"),
    [((2, 7, 5), (3, 4, 3)), ((2, 4, 3), (3, 7, 5)), ((2, 7, 2), (3, 3, 5)), ((2, 5, 5), (3, 1, 1))],
    ids=["larger student", "larger teacher", "one each", "single position"],
)
def test_sizes_that_do_not_divide(student: Any, teacher: Any) -> None:
    case = make_case("AttentionTransfer", student=[student], teacher=[teacher])
    for layer, loss in case.losses().items():
        assert loss.item() == pytest.approx(reference(case.path, case.student, case.teacher)[layer], rel=1e-10)


def test_same_map_at_another_scale_sign_and_width_costs_nothing() -> None:
    features = torch.randn(2, 3, 4, 4)
    path = connect(AttentionTransfer(), [(6, 4, 4)], [(3, 4, 4)])
    target = path.target({"t0": features})
    loss = path({"s0": -5 * torch.cat([features, features], dim=1)}, target, batch_of(2))["s0"]
    assert loss.item() == pytest.approx(0, abs=1e-9)


def test_owns_no_adapter() -> None:
    assert not list(connect(AttentionTransfer(), [(3, 4, 4)], [(8, 4, 4)]).parameters())


BASE = "distill.paths.attention"

MUTANTS = {
    "AttentionTransfer": [
        ("F.mse_loss(", "F.l1_loss("),
        ("student, teacher)\n", "student, teacher, reduction='sum')\n"),
        ("mse_loss(student, teacher)", "mse_loss(student, -teacher)"),
        ("mse_loss(student, teacher)", "mse_loss(student, teacher).sqrt()"),
        ("norm.square()", "norm", BASE),
        ("vector_norm(features, dim=1)", "vector_norm(features, 1, dim=1)", BASE),
        ("norm.square()", "norm.square() / features.shape[1]", BASE),
        ("vector_norm(features, dim=1)", "vector_norm(features, torch.inf, dim=1)", BASE),
        ("2 * gradients[0]", "gradients[0]", BASE),
        ("features * (2", "features.abs() * (2", BASE),
        ("pooled_alike(_energy(student), target)", "pooled_alike(_unit(_energy(student)), _unit(target))", BASE),
        ("_unit(own)", "own", BASE),
        ("_unit(other)", "other", BASE),
        ("energy / (norm + EPSILON)", "energy / norm.clamp_min(EPSILON)", BASE),
        ("energy / (norm + EPSILON)", "energy * (norm + EPSILON)", BASE),
        ("energy / (norm + EPSILON)", "energy", BASE),
        ("(norm + EPSILON)", "(norm - EPSILON)", BASE),
        ("EPSILON = 1e-6", "EPSILON = 1e-8", BASE),
        ("vector_norm(energy, dim", "vector_norm(energy, 1, dim", BASE),
    ],
}
"""Changes of the source that a golden value notices; see test_mutants."""
