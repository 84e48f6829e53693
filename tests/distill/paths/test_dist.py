from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from path_cases import batch_of, connect, loss_of, softmax
from torch import Tensor

from distill.paths import DIST, Path
from distill.taps import OUTPUT


def golden_two_classes(cls: type[Path]) -> None:
    # Of two values only the sign of a correlation is left.  Sample 1: q (3/4, 1/4), p (1/4, 3/4): -1, loss 2.
    # Sample 2: q (2/3, 1/3), p (3/5, 2/5): 1, loss 0.  Mean over samples 1.
    # Class 0: q falls from 3/4 to 2/3, p rises from 1/4 to 3/5: -1, loss 2; class 1 likewise.  Mean over classes 2.
    # beta 3, gamma 1/2: 3 * 1 + 1/2 * 2 = 4; T = 2 with doubled logits: times 4.
    student = [[2 * math.log(3), 0.0], [2 * math.log(2), 0.0]]
    teacher = [[0.0, 2 * math.log(3)], [2 * math.log(1.5), 0.0]]
    assert loss_of(cls(2.0, beta=3.0, gamma=0.5), student, teacher).item() == pytest.approx(16, rel=1e-5)


def golden_three_classes(cls: type[Path]) -> None:
    # q = (1/2, 1/3, 1/6), p = (1/3, 1/2, 1/6); centred (1/6, 0, -1/6) and (0, 1/6, -1/6): correlation 1/2.
    # One sample alone has no correlation over samples: 0, loss 1.  Defaults: 1/2 + 1.
    student, teacher = ([[math.log(v) for v in values]] for values in ((3, 2, 1), (2, 3, 1)))
    assert loss_of(cls(), student, teacher).item() == pytest.approx(1.5, rel=1e-5)


def golden_contrary(cls: type[Path]) -> None:
    # q (3/4, 1/4) and (2/3, 1/3), p (1/4, 3/4) and (2/5, 3/5): -1 for either sample, loss 2.
    # Class 0: q falls, p rises: -1, loss 2; class 1 likewise.  2 + 2.
    student = [[math.log(3), 0.0], [math.log(2), 0.0]]
    teacher = [[0.0, math.log(3)], [0.0, math.log(1.5)]]
    assert loss_of(cls(), student, teacher).item() == pytest.approx(4, rel=1e-5)


GOLDENS = {"DIST": (golden_two_classes, golden_three_classes, golden_contrary)}


def reference(path: Path, student: dict[str, Tensor], teacher: dict[str, Tensor]) -> dict[str, float]:
    """Pearson's correlation in sums, over classes and over samples."""
    q, p = ([softmax(logits) for logits in side[OUTPUT].tolist()] for side in (student, teacher))
    between_classes = [1 - correlation(one, other) for one, other in zip(q, p, strict=True)]
    columns = zip(zip(*q, strict=True), zip(*p, strict=True), strict=True)
    between_samples = [1 - correlation(one, other) for one, other in columns]
    return {"logits": sum(between_classes) / len(between_classes) + sum(between_samples) / len(between_samples)}


def correlation(one: Any, other: Any) -> float:
    one, other = ([value - sum(row) / len(row) for value in row] for row in (one, other))
    norm = math.sqrt(sum(a * a for a in one)) * math.sqrt(sum(b * b for b in other))
    return sum(a * b for a, b in zip(one, other, strict=True)) / (norm + 1e-8)


def test_scale_and_shift_of_the_answers_are_forgiven() -> None:
    # q = (p + uniform) / 2 is an affine image of p: both correlations are 1.
    teacher = torch.randn(5, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    answers = (teacher.softmax(1) + 0.25) / 2
    assert loss_of(DIST(), answers.log().tolist(), teacher.tolist()).item() == pytest.approx(0, abs=1e-5)


def test_contrary_answers_cost_the_most() -> None:
    """An implementation that adds the correlation instead of its complement rewards them."""
    teacher = torch.randn(5, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    contrary = ((1 - teacher.softmax(1)) / 3).log()
    assert loss_of(DIST(), contrary.tolist(), teacher.tolist()).item() == pytest.approx(4, abs=1e-5)


def test_each_pixel_of_a_dense_answer_is_a_sample() -> None:
    student, teacher = torch.randn(
        2, 2, 4, 3, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(3)
    ).unbind()
    path = connect(DIST(), [(1, 1, 1)], [(1, 1, 1)])

    def loss(one: Tensor, other: Tensor) -> Tensor:
        return path({OUTPUT: one}, path.target({OUTPUT: other}), batch_of(len(one)))["logits"]

    flat = [side.permute(0, 2, 3, 1).reshape(-1, 4) for side in (student, teacher)]
    torch.testing.assert_close(loss(student, teacher), loss(*flat))


@pytest.mark.parametrize("options", [{"beta": -1.0}, {"gamma": math.inf}, {"temperature": 0.0}])
def test_options_out_of_bounds_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=f"{next(iter(options))} must be a finite number"):
        DIST(**options)


MUTANTS = {
    "DIST": [
        ("between_classes = 1 - ", "between_classes = "),
        ("between_samples = 1 - ", "between_samples = 1 + "),
        ("_correlation(p.mT, q.mT)", "_correlation(p, q)"),
        ("rows - rows.mean(dim=1, keepdim=True)", "rows"),
        ("vector_norm(one, dim=1)", "vector_norm(one, 1, dim=1)"),
        ("self.beta * between_classes", "self.gamma * between_classes"),
        ("self.temperature**2", "self.temperature"),
        ("_correlation(p, q).mean()", "_correlation(p, q).sum()"),
        ("temperature: float = 1.0", "temperature: float = 4.0"),
    ],
}
"""Changes of the source that a golden value notices; see test_mutants."""
