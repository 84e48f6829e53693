from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from detection_cases import detector_probe, naive_smooth, naive_softmax
from path_cases import batch_of, make_case, make_probe
from torch import Tensor

from distill.paths import BoxOffsets, Path
from distill.taps import OUTPUT


def loss_of(path: Path, student: Tensor, teacher: Tensor, logits: Any, *, independent: bool = True) -> float:
    """Return the loss between offsets `[batch, 4, location]`, with the teacher's logits `[batch][class][location]`."""
    probe = detector_probe([(1, 1, 1)], student.shape[2], independent=independent)
    path.connect(probe, probe)
    target = path.target({":boxes": teacher, OUTPUT: torch.tensor(logits)})
    assert target["boxes"].shape == (len(student), 5, student.shape[2])
    torch.testing.assert_close(target["boxes"][:, :4], teacher)
    loss: float = path({":boxes": student}, target, batch_of(len(student)))["boxes"].item()
    return loss


def golden_confidence_of_the_likeliest_class(cls: type[Path]) -> None:
    # Confidences 3/4 and 1/4 (the other class is unlikely).  Distances 1/2 and 2 of four sides: (1/8 + 3/2) / 4, 13/32;
    # -4: 3.5 / 4 = 7/8.  3/4 * 13/32 + 1/4 * 7/8 = 67/128; the confidences add up to 1.
    student = torch.tensor([[[0.5, 0.0], [2.0, -4.0], [0.0, 0.0], [0.0, 0.0]]])
    logits = [[[math.log(3), -50.0], [-50.0, -math.log(3)]]]
    assert loss_of(cls(), student, torch.zeros(1, 4, 2), logits) == pytest.approx(67 / 128)


def golden_each_image_by_its_own_confidence(cls: type[Path]) -> None:
    # All sides 1 off at the first location: 1/2.  First image: confidences 3/4 and 3/4: 3/8 over 3/2.  Second: 1/4 and
    # 1/4: 1/8 over 1, since 1/2 is less.  Mean of 1/4 and 1/8.
    teacher = torch.full((2, 4, 2), 5.0)
    student = teacher + torch.tensor([1.0, 0.0])
    third = math.log(3)
    logits = [[[third, third]], [[-third, -third]]]
    assert loss_of(cls(), student, teacher, logits) == pytest.approx(3 / 16)


def golden_confidence_besides_the_background(cls: type[Path]) -> None:
    # Softmax of (ln 2, 0, 0): half is background.  All sides 3 off: 2.5 / 2.
    logits = [[[math.log(2)], [0.0], [0.0]]]
    found = loss_of(cls(), torch.full((1, 4, 1), -3.0), torch.zeros(1, 4, 1), logits, independent=False)
    assert found == pytest.approx(1.25)


GOLDENS = {
    "BoxOffsets": (
        golden_confidence_of_the_likeliest_class,
        golden_each_image_by_its_own_confidence,
        golden_confidence_besides_the_background,
    )
}


def reference(path: Path, student: dict[str, Tensor], teacher: dict[str, Tensor]) -> dict[str, float]:
    """Location by location; the family's cases are of sigmoid heads."""
    total = 0.0
    parts = student[":boxes"].tolist(), teacher[":boxes"].tolist(), teacher[OUTPUT].tolist()
    for s, t, logits in zip(*parts, strict=True):
        columns = list(zip(*logits, strict=True))
        weights = [1 / (1 + math.exp(-max(column))) for column in columns]
        distances = [
            sum(naive_smooth(a, b) for a, b in zip(one, other, strict=True)) / 4
            for one, other in zip(zip(*s, strict=True), zip(*t, strict=True), strict=True)
        ]
        total += sum(w * d for w, d in zip(weights, distances, strict=True)) / max(sum(weights), 1)
    return {"boxes": total / len(student[":boxes"])}


def test_softmax_heads_agree_with_loops() -> None:
    case = make_case("BoxOffsets")
    probe = detector_probe([(1, 1, 1)], case.student[":boxes"].shape[2], independent=False)
    case.path.connect(probe, probe)
    target = case.target()["boxes"]
    for image, logits in enumerate(case.teacher[OUTPUT].tolist()):
        wanted = [1 - naive_softmax(column)[0] for column in zip(*logits, strict=True)]
        assert target[image, 4].tolist() == pytest.approx(wanted)


def test_a_student_like_the_teacher_costs_nothing() -> None:
    case = make_case("BoxOffsets")
    case.student = case.teacher
    assert case.loss() == 0


def test_other_locations_are_refused() -> None:
    with pytest.raises(
        ValueError, match=r"student gives \[4, 6\] and the teacher \[4, 8\] a sample: both models must be"
    ):
        BoxOffsets().connect(detector_probe([(1, 2, 3)], 6), detector_probe([(1, 2, 4)], 8))


@pytest.mark.parametrize("role", ["student", "teacher"])
def test_models_without_boxes_are_refused(role: str) -> None:
    sides = [detector_probe([(1, 2, 3)], 6)] * 2
    sides[role == "teacher"] = make_probe("s", [(1, 2, 3)])
    with pytest.raises(
        ValueError, match=rf"^BoxOffsets compares the boxes of two detectors, but the {role} gives none$"
    ):
        BoxOffsets().connect(*sides)


MUTANTS = {
    "BoxOffsets": [
        ("logits.amax(dim=1, keepdim=True)", "logits.amin(dim=1, keepdim=True)"),
        ("logits.amax(dim=1, keepdim=True)", "logits.softmax(dim=1).amax(dim=1, keepdim=True).logit()"),
        ("confidence = confidence.sigmoid()", "confidence = confidence.exp()"),
        ("logits.softmax(dim=1)[:, 1:]", "logits.softmax(dim=1)[:, :1] + logits.softmax(dim=1)[:, :-1]"),
        (
            "if self._independent:\n                confidence = logits",
            "if not self._independent:\n                confidence = logits",
        ),
        (
            "if self._independent:\n                confidence = confidence",
            "if not self._independent:\n                confidence = confidence",
        ),
        ('reduction="none").mean(dim=1)', 'reduction="none").sum(dim=1)'),
        ("F.smooth_l1_loss(", "F.mse_loss("),
        ("(confidence * distances)", "distances"),
        (".clamp_min(1)).mean()", ").mean()"),
        (".clamp_min(1)).mean()", ".clamp_min(1)).sum()"),
        (" / confidence.sum(dim=1).clamp_min(1)", ""),
    ],
}
"""Changes of the source that a golden value notices; see test_mutants."""
