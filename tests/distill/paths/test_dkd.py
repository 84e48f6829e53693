from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from path_cases import batch_of, connect, dense_loss_of, join, loss_of, softmax
from torch import Tensor

from distill.paths import DKD, Path
from distill.taps import OUTPUT


def golden_three_classes(cls: type[Path]) -> None:
    # Label 0, T = 1.  Student (ln 2, 0, 0): q = (1/2, 1/4, 1/4).  Teacher (0, ln 2, 0): p = (1/4, 1/2, 1/4).
    # Target class: KL of (1/2, 1/2) from (1/4, 3/4) = 1/4 ln(1/2) + 3/4 ln(3/2) = 3/4 ln 3 - ln 2.
    # Other classes: q (1/2, 1/2), p (2/3, 1/3): 2/3 ln(4/3) + 1/3 ln(2/3) = 5/3 ln 2 - ln 3.
    # A second sample with equal answers gives 0, so the mean is half of it.
    two, three = math.log(2), math.log(3)
    student, teacher = [[two, 0.0, 0.0], [1.0, 2.0, 3.0]], [[0.0, two, 0.0], [1.0, 2.0, 3.0]]
    target, others = 0.75 * three - two, 5 / 3 * two - three
    found = loss_of(cls(temperature=1.0, alpha=3.0, beta=5.0), student, teacher)
    assert found.item() == pytest.approx((3 * target + 5 * others) / 2)


def golden_defaults(cls: type[Path]) -> None:
    # T = 4: logits four times those above have the same answers, and the loss counts 16 times; alpha 1, beta 8.
    two, three = math.log(2), math.log(3)
    target, others = 0.75 * three - two, 5 / 3 * two - three
    found = loss_of(cls(), [[4 * two, 0.0, 0.0]], [[0.0, 4 * two, 0.0]])
    assert found.item() == pytest.approx(16 * (target + 8 * others))


def golden_one_known_pixel(cls: type[Path]) -> None:
    # The first golden value's first sample as one of two pixels, whose labels are 0 and not known: the mean is over it.
    two, three = math.log(2), math.log(3)
    student = torch.tensor([[two, 0.0, 0.0], [9.0, 1.0, 5.0]]).T.reshape(1, 3, 2, 1)
    teacher = torch.tensor([[0.0, two, 0.0], [1.0, 9.0, 5.0]]).T.reshape(1, 3, 2, 1)
    path = join(cls(temperature=1.0, alpha=3.0, beta=5.0), (3, 2, 1))
    found = dense_loss_of(path, student, teacher, torch.tensor([[[0], [255]]]))
    assert found.item() == pytest.approx(3 * (0.75 * three - two) + 5 * (5 / 3 * two - three), rel=1e-5)
    assert dense_loss_of(path, student, teacher, torch.full((1, 2, 1), 255)).item() == 0


GOLDENS = {"DKD": (golden_three_classes, golden_defaults, golden_one_known_pixel)}


def reference(path: Path, student: dict[str, Tensor], teacher: dict[str, Tensor]) -> dict[str, float]:
    """Class by class, from probabilities; the label is class 0, as in `batch_of`."""
    total = 0.0
    for one, other in zip(student[OUTPUT].tolist(), teacher[OUTPUT].tolist(), strict=True):
        q, p = (softmax([value / 4 for value in logits]) for logits in (one, other))
        binary = p[0] * math.log(p[0] / q[0]) + (1 - p[0]) * math.log((1 - p[0]) / (1 - q[0]))
        rest_q, rest_p = ([value / (1 - answers[0]) for value in answers[1:]] for answers in (q, p))
        total += binary + 8 * sum(a * math.log(a / b) for a, b in zip(rest_p, rest_q, strict=True))
    return {"logits": 16 * total / len(student[OUTPUT])}


def test_soft_targets_are_the_same_with_beta_as_the_teacher_s_doubt() -> None:
    # KL(p || q) = KL of the binary answers + (1 - p_y) * KL among the others, for one sample.
    student, teacher = [[1.0, -2.0, 0.5]], [[2.0, 1.0, -1.0]]
    p = softmax(teacher[0])
    q = softmax(student[0])
    whole = sum(a * math.log(a / b) for a, b in zip(p, q, strict=True))
    found = loss_of(DKD(temperature=1.0, alpha=1.0, beta=1 - p[0]), student, teacher)
    assert found.item() == pytest.approx(whole)


def test_labels_choose_the_target_class() -> None:
    path = connect(DKD(1.0), [(1, 1, 1)], [(1, 1, 1)])
    student, teacher = torch.randn(2, 2, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0)).unbind()
    batch = batch_of(2)
    batch.labels[:] = torch.tensor([2, 1])
    found = path({OUTPUT: student}, path.target({OUTPUT: teacher}), batch)["logits"]
    rolled = [torch.stack([rows[0].roll(-2), rows[1].roll(-1)]) for rows in (student, teacher)]
    expected = path({OUTPUT: rolled[0]}, path.target({OUTPUT: rolled[1]}), batch_of(2))["logits"]
    torch.testing.assert_close(found, expected)


def test_a_teacher_sure_beyond_rounding_still_ranks_the_others() -> None:
    # In float32 1 - p_y is 0 here; the ranking of the others must count nevertheless.
    student = torch.tensor([[40.0, 0.0, 0.0]], requires_grad=True)
    path = connect(DKD(temperature=1.0), [(1, 1, 1)], [(1, 1, 1)], torch.nn.Linear(1, 3))
    loss = path({OUTPUT: student}, path.target({OUTPUT: torch.tensor([[60.0, math.log(2), 0.0]])}), batch_of(1))[
        "logits"
    ]
    loss.backward()
    assert loss.item() == pytest.approx(8 * (5 / 3 * math.log(2) - math.log(3)), rel=1e-5)
    assert student.grad is not None
    torch.testing.assert_close(student.grad[0, 1:], 8 * torch.tensor([-1 / 6, 1 / 6]))


@pytest.mark.parametrize("options", [{"alpha": -1.0}, {"beta": math.nan}, {"temperature": 0.0}])
def test_options_out_of_bounds_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=f"{next(iter(options))} must be a finite number"):
        DKD(**options)


MUTANTS = {
    "DKD": [
        ("self.alpha * divergence", "self.beta * divergence"),
        ("+ self.beta *", "- self.beta *"),
        ("divergence(binary_p, binary_q)", "divergence(binary_q, binary_p)"),
        ("divergence(other_p, other_q)", "divergence(other_q, other_p)"),
        ("self.temperature**2 *", "self.temperature *"),
        ("mean_of_known(parts, known)", "parts.mean()"),
        ("values.mean()", "values.sum()", "distill.paths.known"),
        ("(values * known).sum()", "values.sum()", "distill.paths.known"),
        ("known.sum().clamp_min(1)", "known.numel()", "distill.paths.known"),
        ("known.sum().clamp_min(1)", "known.sum()", "distill.paths.known"),
        ("F.log_softmax(without, dim=1).scatter", "F.log_softmax(logits, dim=1).scatter"),
        ("without.logsumexp(dim=1)", "logits.logsumexp(dim=1)"),
        ("temperature: float = 4.0", "temperature: float = 1.0"),
        ("alpha: float = 1.0", "alpha: float = 0.5"),
        ("beta: float = 8.0", "beta: float = 1.0"),
    ],
}
"""Changes of the source that a golden value notices; see test_mutants."""
