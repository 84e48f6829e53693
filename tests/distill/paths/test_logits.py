from __future__ import annotations

import torch
from path_cases import batch_of, connect
from torch import Tensor

from distill.paths import Logits, Path
from distill.taps import OUTPUT


def golden_mean_of_squares(cls: type[Path]) -> None:
    # Differences (1, 2) and (0, -3): squares 1, 4, 0, 9; their mean over samples and classes is 14/4.
    student, teacher = torch.tensor([[2.0, 1.0], [5.0, 0.0]]), torch.tensor([[1.0, -1.0], [5.0, 3.0]])
    path = connect(cls(), [(1, 1, 1)], [(1, 1, 1)])
    loss = path({OUTPUT: student}, path.target({OUTPUT: teacher}), batch_of(2))["logits"]
    torch.testing.assert_close(loss, torch.tensor(3.5))


def golden_shift_counts(cls: type[Path]) -> None:
    # All logits shifted by 2: the same probabilities, yet each difference is 2 and the loss 4: nothing is centred.
    teacher = torch.tensor([[1.0, -1.0, 3.0]])
    path = connect(cls(), [(1, 1, 1)], [(1, 1, 1)])
    loss = path({OUTPUT: teacher + 2}, path.target({OUTPUT: teacher}), batch_of(1))["logits"]
    torch.testing.assert_close(loss, torch.tensor(4.0))


def golden_half_precision(cls: type[Path]) -> None:
    # (300 - 0)^2 = 90000 is beyond float16's 65504: the difference is taken in float32.
    path = connect(cls(), [(1, 1, 1)], [(1, 1, 1)])
    student, teacher = torch.full((2, 4), 300.0).half(), torch.zeros(2, 4).half()
    loss = path({OUTPUT: student}, path.target({OUTPUT: teacher}), batch_of(2))["logits"]
    torch.testing.assert_close(loss, torch.tensor(90000.0))


GOLDENS = {"Logits": (golden_mean_of_squares, golden_shift_counts, golden_half_precision)}


def reference(path: Path, student: dict[str, Tensor], teacher: dict[str, Tensor]) -> dict[str, float]:
    """Logit by logit."""
    squares = []
    for one, other in zip(student[OUTPUT].tolist(), teacher[OUTPUT].tolist(), strict=True):
        for a, b in zip(one, other, strict=True):
            squares.append((a - b) ** 2)
    return {"logits": sum(squares) / len(squares)}


def test_gradient() -> None:
    # d/ds of the mean over 4 values is 2 (s - t) / 4: differences (1, 2) and (0, -3) give (.5, 1), (0, -1.5).
    student = torch.tensor([[2.0, 1.0], [5.0, 0.0]], requires_grad=True)
    path = connect(Logits(), [(1, 1, 1)], [(1, 1, 1)])
    path({OUTPUT: student}, {"logits": torch.tensor([[1.0, -1.0], [5.0, 3.0]])}, batch_of(2))["logits"].backward()
    torch.testing.assert_close(student.grad, torch.tensor([[0.5, 1.0], [0.0, -1.5]]))


MUTANTS = {
    "Logits": [
        ("F.mse_loss(", "F.l1_loss("),
        ("F.mse_loss(student, teacher)", "F.mse_loss(student, -teacher)"),
        ("F.mse_loss(student, teacher)", "-F.mse_loss(student, teacher)"),
        ("F.mse_loss(student, teacher)", "F.mse_loss(student, teacher, reduction='sum')"),
        ("F.mse_loss(student, teacher)", "(student - teacher).square().sum(dim=1).mean()"),
        (
            "F.mse_loss(student, teacher)",
            "F.mse_loss(student - student.mean(1, True), teacher)",
        ),
        ("else tensor.to(torch.promote_types(tensor.dtype, torch.float32))", "else tensor", "distill.paths.base"),
    ],
}
"""Changes of the source that a golden value notices; see test_mutants."""
