from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest
import torch
from detection_cases import PlainRegions, detector_probe, naive_smooth, naive_softmax
from path_cases import batch_of, make_case, make_probe
from torch import Tensor, nn

from distill.paths import Path, RegionLogits
from distill.taps import Head, RegionHead

HALF = [[0.0, 0.0, 4.0, 4.0], [0.0, 0.0, 0.0, 0.0], [2.0, 1.0, 8.0, 6.0]]
"""Three regions, of which the second is empty."""


class Says(RegionHead):
    """A second stage that says what it is told to, and remembers what it was asked."""

    def __init__(self, logits: Any, offsets: Any, regions: Any = HALF) -> None:
        self.logits, self.offsets, self.regions = torch.tensor(logits), torch.tensor(offsets), torch.tensor(regions)
        self.num_classes = self.logits.shape[-1]

    def propose(self, outputs: Mapping[str, Tensor], number: int) -> Tensor:
        self.number = number
        return self.regions[None]

    def describe(self, outputs: Mapping[str, Tensor], regions: Tensor) -> tuple[Tensor, Tensor]:
        self.asked = regions
        return self.logits[None], self.offsets[None]


def losses_of(path: Path, student: Says, teacher: Says) -> dict[str, float]:
    """Return the losses of both layers for a batch of one image."""
    probe = detector_probe([(1, 1, 1)], 1)
    path.connect(replace(probe, head=Head(regions=student)), replace(probe, head=Head(regions=teacher)))
    taps = {tap: torch.zeros(1, 1, 1, 1) for tap in probe.taps}
    losses = path(taps, path.target(taps), batch_of(1))
    return {layer: loss.item() for layer, loss in losses.items()}


NO_OFFSETS = [[[0.0] * 4] * 2] * 3


def golden_classes(cls: type[Path]) -> None:
    # p = (3/4, 1/4), the background weighs 3/2: (9/8, 1/4), Z = 11/8, p' = (9/11, 2/11).  The student's even answer
    # costs Z (9/11 ln(18/11) + 2/11 ln(4/11)) in the first region, and nothing in the last, where it is p'.  The second
    # is empty: half of it.
    wanted = 11 / 8 * (9 / 11 * math.log(18 / 11) + 2 / 11 * math.log(4 / 11)) / 2
    for scale, temperature in ((1.0, 1.0), (2.0, 2.0)):  # at T = 2 with logits twice as large: four times as much
        teacher = Says([[scale * math.log(3), 0.0], [9.0, 0.0], [scale * math.log(3), 0.0]], NO_OFFSETS)
        student = Says([[0.0, 0.0], [0.0, 9.0], [scale * math.log(4.5), 0.0]], NO_OFFSETS)
        losses = losses_of(cls(temperature=temperature), student, teacher)
        assert losses["classes"] == pytest.approx(temperature**2 * wanted)
        assert losses["boxes"] == 0


def golden_background_as_any_class(cls: type[Path]) -> None:
    # The plain divergence of (1/2, 1/2) from (3/4, 1/4), in one of two regions.
    teacher = Says([[math.log(3), 0.0], [0.0, 0.0], [0.0, 0.0]], NO_OFFSETS)
    losses = losses_of(cls(background_weight=1.0), Says([[0.0, 0.0]] * 3, NO_OFFSETS), teacher)
    assert losses["classes"] == pytest.approx((0.75 * math.log(1.5) + 0.25 * math.log(0.5)) / 2)


def golden_boxes(cls: type[Path]) -> None:
    # Distances 1/2 and 2 of four sides: (1/8 + 3/2) / 4 = 13/32.  The first region is an object by 1/4, the last by
    # 3/4, where all sides are 3 off: 1/4 * 13/32 + 3/4 * 5/2; 1/4 and 3/4 add up to 1.  What is said for the background
    # and for the empty region does not count.
    logits = [[math.log(3), 0.0], [0.0, 9.0], [0.0, math.log(3)]]
    offsets = [[[9.0] * 4, [0.5, -2.0, 0.0, 0.0]], [[9.0] * 4] * 2, [[9.0] * 4, [3.0] * 4]]
    losses = losses_of(cls(background_weight=1.0), Says(logits, offsets), Says(logits, NO_OFFSETS))
    assert losses["boxes"] == pytest.approx(13 / 128 + 15 / 8)
    assert losses["classes"] == pytest.approx(0, abs=1e-7)
    # Objects by 3/4 each are more than 1 together: 3/4 (13/32 + 5/2) / (3/2).
    logits = [[0.0, math.log(3)], [0.0, 9.0], [0.0, math.log(3)]]
    losses = losses_of(cls(), Says(logits, offsets), Says(logits, NO_OFFSETS))
    assert losses["boxes"] == pytest.approx((13 / 32 + 5 / 2) / 2)
    # Objects by 1/4 each are less: they are not made more of.
    logits = [[math.log(3), 0.0], [0.0, 9.0], [math.log(3), 0.0]]
    losses = losses_of(cls(), Says(logits, offsets), Says(logits, NO_OFFSETS))
    assert losses["boxes"] == pytest.approx((13 / 32 + 5 / 2) / 4)


def golden_regions_are_the_teachers(cls: type[Path]) -> None:
    # 300.2 lies between 300 and 300.25 in half precision.
    regions = [[300.2, 0.0, 301.0, 1.0], [0.0] * 4, [0.0] * 4]
    teacher = Says([[1.0, 2.0]] * 3, [[[3.0] * 4, [4.0] * 4]] * 3, regions)
    student = Says([[1.0, 2.0]] * 3, NO_OFFSETS)
    path = cls(number=3)
    losses_of(path, student, teacher)
    assert teacher.number == 3
    for side in (student, teacher):
        assert side.asked[0, 0].tolist() == [300.25, 0.0, 301.0, 1.0]
    target = path.target({tap: torch.zeros(1, 1, 1, 1) for tap in ("", ":level0")})
    assert target["classes"][0, 0].tolist() == [300.25, 0.0, 301.0, 1.0, 1.0, 2.0]
    assert target["boxes"][0, 0].tolist() == [300.25, 0.0, 301.0, 1.0, 3.0, 3.0, 3.0, 3.0, 4.0, 4.0, 4.0, 4.0]


GOLDENS = {
    "RegionLogits": (
        golden_classes,
        golden_background_as_any_class,
        golden_boxes,
        golden_regions_are_the_teachers,
    )
}


def reference(path: Path, student: dict[str, Tensor], teacher: dict[str, Tensor]) -> dict[str, float]:
    """Region by region, from what the second stages of detection_cases say."""
    regions = path._teacher.propose(teacher, path.number).half().double()
    sides = [path._student.describe(student, regions), path._teacher.describe(teacher, regions)]
    (own, own_offsets), (wanted, offsets) = ([said.tolist() for said in side] for side in sides)
    classes = boxes = 0.0
    for image, corners in enumerate(regions.tolist()):
        found = [number for number, corner in enumerate(corners) if corner[2] > corner[0]]
        assert len(found) == 5
        classes += sum(_class_loss(path, own[image][i], wanted[image][i]) for i in found) / 5
        weights = [naive_softmax(wanted[image][i])[1:] for i in found]
        distances = [_distances(own_offsets[image][i], offsets[image][i]) for i in found]
        total = sum(w * d for ws, ds in zip(weights, distances, strict=True) for w, d in zip(ws, ds, strict=True))
        boxes += total / max(sum(sum(row) for row in weights), 1)
    return {"classes": classes / len(regions), "boxes": boxes / len(regions)}


def _class_loss(path: Path, own: list[float], wanted: list[float]) -> float:
    p, q = (naive_softmax([value / path.temperature for value in logits]) for logits in (wanted, own))
    weighted = [path.background_weight * p[0], *p[1:]]
    # The weighted cross-entropy, less what it is for the best answer, which is in proportion to the weighted shares.
    best = [share / sum(weighted) for share in weighted]
    excess = [w * (math.log(b) - math.log(a)) for w, a, b in zip(weighted, q, best, strict=True) if w]
    return path.temperature**2 * sum(excess)


def _distances(own: list[list[float]], wanted: list[list[float]]) -> list[float]:
    return [
        sum(naive_smooth(a, b) for a, b in zip(one, other, strict=True)) / 4
        for one, other in zip(own[1:], wanted[1:], strict=True)
    ]


def test_a_student_like_the_teacher_matches_its_boxes_and_almost_its_classes() -> None:
    case = make_case("RegionLogits", student=((4, 4, 4),), teacher=((4, 4, 4),))
    probe = detector_probe([(4, 4, 4)], 16)
    path = RegionLogits(number=7, background_weight=1.0)
    path.connect(probe, probe)
    case.path, case.student = path, case.teacher
    assert case.loss().item() == pytest.approx(0, abs=1e-14)


def test_the_weighted_divergence_has_the_gradient_of_the_weighted_cross_entropy() -> None:
    case = make_case("RegionLogits", batch_size=1)
    regions = case.target()["classes"]
    wanted = regions[0, :5, 4:].softmax(dim=1) * torch.tensor([1.5, 1.0, 1.0, 1.0])
    level = case.student[":level0"].requires_grad_()
    (slope,) = torch.autograd.grad(case.losses()["classes"], [level])
    logits, _ = PlainRegions(0).describe(case.student, regions[:, :5, :4])
    entropy = -(wanted * logits[0].log_softmax(dim=1)).sum(dim=1).mean()
    torch.testing.assert_close(torch.autograd.grad(entropy, [level])[0], slope)


class Detector(nn.Module):
    """A model whose second stage is a module."""

    def __init__(self) -> None:
        super().__init__()
        self.second = nn.Linear(2, 2)


class Holding(Says):
    """A second stage that holds its model."""

    def __init__(self, model: Detector) -> None:
        super().__init__([[0.0, 0.0]] * 3, NO_OFFSETS)
        self.model = model


def test_the_models_parameters_are_not_the_paths() -> None:
    path = RegionLogits()
    losses_of(path, Holding(Detector()), Holding(Detector()))
    assert list(path.parameters()) == []
    assert list(path.state_dict()) == []


@pytest.mark.parametrize("role", ["student", "teacher"])
def test_models_of_one_stage_are_refused(role: str) -> None:
    sides = [detector_probe([(1, 2, 3)], 6)] * 2
    sides[role == "teacher"] = make_probe("s", [(1, 2, 3)])
    with pytest.raises(
        ValueError, match=rf"^RegionLogits compares the second stages of two detectors, but the {role} has"
    ):
        RegionLogits().connect(*sides)


def test_other_classes_are_refused() -> None:
    probe = detector_probe([(1, 2, 3)], 6)
    other = replace(probe, head=Head(regions=Says([[0.0, 0.0]], [[[0.0] * 4] * 2])))
    with pytest.raises(ValueError, match=r"the student tells 4 classes apart and the teacher 2: both models need"):
        RegionLogits().connect(probe, other)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"number": 0}, "number must be a whole number of at least 1, found 0"),
        ({"temperature": 0}, "temperature must be a finite number above 0, found 0"),
        ({"background_weight": 0}, "background_weight must be a finite number above 0, found 0"),
    ],
)
def test_options_out_of_bounds(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=f"^{message}$"):
        RegionLogits(**options)


MUTANTS = {
    "RegionLogits": [
        ("propose(parts, self.number).half()", "propose(parts, self.number).round()"),
        ("propose(parts, self.number).half()", "propose(parts, self.number)"),
        ("self.temperature**2 * means", "means"),
        ("student / self.temperature", "student"),
        ("teacher / self.temperature", "teacher"),
        ("weights[0] = self.background_weight", "weights[-1] = self.background_weight"),
        ("log_weighted.exp() * (log_weighted - log_total - log_q)", "log_weighted.exp() * (log_weighted - log_q)"),
        ("(divergences * found)", "divergences"),
        (" / found.sum(dim=1).clamp_min(1)", " / found.shape[1]"),
        ("[:, :, 1:] * found[:, :, None])", "[:, :, 1:])"),
        ("logits.softmax(dim=2)[:, :, 1:]", "logits.softmax(dim=2)[:, :, :1]"),
        ("student[:, :, 1:], teacher[:, :, 1:]", "student[:, :, :1], teacher[:, :, :1]"),
        ('reduction="none").mean(dim=3)', 'reduction="none").sum(dim=3)'),
        ("F.smooth_l1_loss(", "F.mse_loss("),
        (".clamp_min(1)).mean()", ").mean()"),
        ("(confidence * distances)", "distances"),
    ],
}
"""Changes of the source that a golden value notices; see test_mutants."""
