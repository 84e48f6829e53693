from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from path_cases import batch_of, connect, dense_loss_of, join, loss_of, softmax
from torch import Tensor

from distill.paths import WSLD, Path
from distill.taps import OUTPUT


def golden_two_classes(cls: type[Path]) -> None:
    # T = 2.  Student (0, 2 ln 3): q = (1/4, 3/4).  Teacher (5, 5): p = (1/2, 1/2).  KL = 1/2 ln(4/3).
    # Label 0, at temperature 1: c_s = ln(1 + 9) = ln 10, c_t = ln 2; weight 1 - exp(-ln 10 / ln 2).
    # A second sample with equal answers gives 0, so the mean is half of 4 * weight * 1/2 ln(4/3).
    weight = 1 - math.exp(-math.log(10) / math.log(2))
    found = loss_of(cls(), [[0.0, 2 * math.log(3)], [3.0, 1.0]], [[5.0, 5.0], [3.0, 1.0]])
    assert found.item() == pytest.approx(weight * math.log(4 / 3), rel=1e-6)


def golden_better_than_the_teacher(cls: type[Path]) -> None:
    # Student (2 ln 3, 0): q = (3/4, 1/4), c_s = ln(1 + 1/9) = ln(10/9).
    # Teacher (0, 2 ln 3): p = (1/4, 3/4), c_t = ln 10.
    # KL = 1/4 ln(1/3) + 3/4 ln 3 = 1/2 ln 3; the weight is small: 1 - exp(-ln(10/9) / ln 10).
    weight = 1 - math.exp(-math.log(10 / 9) / math.log(10))
    found = loss_of(cls(), [[2 * math.log(3), 0.0]], [[0.0, 2 * math.log(3)]])
    assert found.item() == pytest.approx(4 * weight * math.log(3) / 2, rel=1e-6)


def golden_one_known_pixel(cls: type[Path]) -> None:
    # The first golden value's first sample as one of three pixels, of which it alone is known: the mean is over it.
    student, teacher = torch.zeros(1, 2, 1, 3), torch.full((1, 2, 1, 3), 5.0)
    student[0, 1, 0] = torch.tensor([2 * math.log(3), 7.0, -7.0])
    labels = torch.tensor([[[0, 255, 255]]])
    weight = 1 - math.exp(-math.log(10) / math.log(2))
    path = join(cls(), (2, 1, 3))
    found = dense_loss_of(path, student, teacher, labels)
    assert found.item() == pytest.approx(2 * weight * math.log(4 / 3), rel=1e-5)
    assert dense_loss_of(path, student, teacher, torch.full_like(labels, 255)).item() == 0


GOLDENS = {"WSLD": (golden_two_classes, golden_better_than_the_teacher, golden_one_known_pixel)}


def reference(path: Path, student: dict[str, Tensor], teacher: dict[str, Tensor]) -> dict[str, float]:
    """Class by class, from probabilities; the label is class 0, as in `batch_of`."""
    total = 0.0
    for one, other in zip(student[OUTPUT].tolist(), teacher[OUTPUT].tolist(), strict=True):
        behind = -math.log(softmax(one)[0]) / (-math.log(softmax(other)[0]) + 1e-7)
        q, p = (softmax([value / 2 for value in logits]) for logits in (one, other))
        total += (1 - math.exp(-behind)) * sum(a * math.log(a / b) for a, b in zip(p, q, strict=True))
    return {"logits": 4 * total / len(student[OUTPUT])}


def test_no_gradient_passes_through_the_weight() -> None:
    # d/ds of T^2 KL is T (q - p); for q = (1/4, 3/4), p = (1/2, 1/2), T = 2: (-1/2, 1/2), times the weight alone.
    student = torch.tensor([[0.0, 2 * math.log(3)]], dtype=torch.float64, requires_grad=True)
    path = connect(WSLD(), [(1, 1, 1)], [(1, 1, 1)], torch.nn.Linear(1, 2))
    path({OUTPUT: student}, path.target({OUTPUT: torch.zeros(1, 2).double()}), batch_of(1))["logits"].backward()
    weight = 1 - math.exp(-math.log(10) / math.log(2))
    torch.testing.assert_close(student.grad, weight * torch.tensor([[-0.5, 0.5]]).double(), rtol=1e-5, atol=0)


def test_a_teacher_without_loss_counts_in_full() -> None:
    assert loss_of(WSLD(), [[0.0, 0.0]], [[1e4, 0.0]]).item() == pytest.approx(4 * math.log(2))


@pytest.mark.parametrize("temperature", [0.0, math.nan])
def test_options_out_of_bounds_are_refused(temperature: Any) -> None:
    with pytest.raises(ValueError, match="temperature must be a finite number"):
        WSLD(temperature)


MUTANTS = {
    "WSLD": [
        ("-(-behind", "-(behind"),
        (").expm1()", ").exp()"),
        ("behind / (", "behind * ("),
        ("self.temperature**2 *", "self.temperature *"),
        ("divergence(log_p, log_q)", "divergence(log_q, log_p)"),
        ("mean_of_known(weight * divergence(log_p, log_q), known)", "(weight * divergence(log_p, log_q)).mean()"),
        ("values.mean()", "values.sum()", "distill.paths.known"),
        ("(values * known).sum()", "values.sum()", "distill.paths.known"),
        (".sum(dim=1).clamp_min(0)", ".mean(dim=1).clamp_min(0)", "distill.paths.softened"),
        ("_cross_entropy(teacher,", "_cross_entropy(self.soften(teacher),"),
        ("temperature: float = 2.0", "temperature: float = 4.0"),
    ],
}
"""Changes of the source that a golden value notices; see test_mutants."""
