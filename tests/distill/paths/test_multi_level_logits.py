from __future__ import annotations

import math
from typing import Any

import pytest
from path_cases import loss_of, softmax
from torch import Tensor

from distill.paths import MultiLevelLogits, Path
from distill.taps import OUTPUT


def golden_one_sample(cls: type[Path]) -> None:
    # T = 2.  Student (0, 2 ln 3): q = (1/4, 3/4).  Teacher: p = (1/2, 1/2).  Sample: 4 * 1/2 ln(4/3).
    # Batch: (q q' - p p')^2 / 1 = (10/16 - 1/2)^2 = 1/64.
    # Class: q' q - p' p = (1 - 4, 3 - 4; 3 - 4, 9 - 4) / 16, squares (9 + 1 + 1 + 25) / 256, over 2 classes: 9/128.
    student, teacher = [[0.0, 2 * math.log(3)]], [[5.0, 5.0]]
    once = 2 * math.log(4 / 3) + 1 / 64 + 9 / 128
    assert loss_of(cls(temperatures=[2.0]), student, teacher).item() == pytest.approx(once)
    assert loss_of(cls(temperatures=[2.0, 2.0, 2.0]), student, teacher).item() == pytest.approx(3 * once)


def golden_two_samples(cls: type[Path]) -> None:
    # T = 1.  Students q = (1/4, 3/4) and (3/4, 1/4), teachers (1/2, 1/2) twice.  Sample: 1/2 ln(4/3) each.
    # Batch: q q' = (10, 6; 6, 10) / 16, p p' = 1/2 everywhere: (1/8)^2 * 4 / 2 = 1/32.
    # Class: q' q = (10, 6; 6, 10) / 16, p' p = 1/2 everywhere: likewise 1/32.
    student, teacher = [[0.0, math.log(3)], [math.log(3), 0.0]], [[0.0, 0.0], [0.0, 0.0]]
    found = loss_of(cls(temperatures=[1.0]), student, teacher)
    assert found.item() == pytest.approx(math.log(4 / 3) / 2 + 1 / 16)


def golden_defaults(cls: type[Path]) -> None:
    student, teacher = [[0.0, 1.0]], [[0.5, 0.0]]
    parts = [loss_of(cls(temperatures=[each]), student, teacher) for each in (2.0, 3.0, 4.0, 5.0, 6.0)]
    assert loss_of(cls(), student, teacher).item() == pytest.approx(sum(part.item() for part in parts))


GOLDENS = {"MultiLevelLogits": (golden_one_sample, golden_two_samples, golden_defaults)}


def reference(path: Path, student: dict[str, Tensor], teacher: dict[str, Tensor]) -> dict[str, float]:
    """Pair by pair of samples, and of classes."""
    total = 0.0
    for temperature in (2, 3, 4, 5, 6):
        q, p = (
            [softmax([v / temperature for v in row]) for row in side[OUTPUT].tolist()] for side in (student, teacher)
        )
        count, classes = len(q), len(q[0])
        total += (
            temperature**2
            * sum(a * math.log(a / b) for one, other in zip(q, p, strict=True) for b, a in zip(one, other, strict=True))
            / count
        )
        for i in range(count):
            for j in range(count):
                total += sum(q[i][k] * q[j][k] - p[i][k] * p[j][k] for k in range(classes)) ** 2 / count
        for k in range(classes):
            for m in range(classes):
                total += sum(q[i][k] * q[i][m] - p[i][k] * p[i][m] for i in range(count)) ** 2 / classes
    return {"logits": total}


@pytest.mark.parametrize("temperatures", [(), (0.0,), (1.0, math.nan)])
def test_temperatures_must_be_positive_numbers(temperatures: Any) -> None:
    with pytest.raises(ValueError, match="temperatures must"):
        MultiLevelLogits(temperatures)


MUTANTS = {
    "MultiLevelLogits": [
        ("temperature**2 *", ""),
        ("q @ q.mT - p @ p.mT", "q @ q.mT + p @ p.mT"),
        ("q @ q.mT - p @ p.mT", "q @ p.mT - p @ p.mT"),
        (".square().sum() / len(q)", ".square().sum() / q.shape[1]"),
        (".square().sum() / len(q)", ".abs().sum() / len(q)"),
        ("q.mT @ q - p.mT @ p", "q.mT @ p - p.mT @ p"),
        ("/ q.shape[1]", "/ q.shape[1] ** 2"),
        ("divergence(log_p, log_q)", "divergence(log_q, log_p)"),
        ("for each in self.temperatures]).sum()", "for each in self.temperatures]).mean()"),
        ("(2.0, 3.0, 4.0, 5.0, 6.0)", "(4.0,)"),
    ],
}
"""Changes of the source that a golden value notices; see test_mutants."""
