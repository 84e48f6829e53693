from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from detection_cases import BINS, BOXES, detector_probe, naive_softmax
from path_cases import batch_of, make_case, make_probe
from torch import Tensor

from distill.batch import Batch
from distill.objects import Objects
from distill.paths import LD, Path
from distill.taps import Head, LocationHead

HALVES = 0.75 * math.log(1.5) + 0.25 * math.log(0.5)
"""The divergence of (1/2, 1/2) from (3/4, 1/4)."""


class Fixed(LocationHead):
    """Anchors and positive locations as given."""

    def __init__(self, anchors: list[list[float]], positive: list[list[bool]]) -> None:
        self._anchors, self._positive = torch.tensor(anchors), torch.tensor(positive)

    def anchors(self, device: torch.device) -> Tensor:
        return self._anchors.to(device)

    def positive(self, objects: Objects) -> Tensor:
        return self._positive


def batch(*images: tuple[list[list[float]], list[bool]]) -> Batch:
    """Return a batch with these boxes, and whether they are ignored."""
    objects = [
        (torch.tensor(boxes).reshape(-1, 4), torch.ones(len(boxes), dtype=torch.int64), torch.tensor(ignored).bool())
        for boxes, ignored in images
    ]
    return Batch(torch.zeros(len(images), 3, 16, 16), Objects.of(objects), torch.arange(len(images)))


def loss_of(path: Path, student: Tensor, teacher: Tensor, locations: Fixed, seen: Batch) -> float:
    """Return the loss between distributions `[batch, 4 * bins, location]`."""
    probe = detector_probe([(1, 1, 1)], student.shape[2])
    shapes = {":box_distribution": tuple(student.shape[1:])}
    probe = replace(probe, output_shapes=shapes, head=Head(locations=locations))
    path.connect(probe, probe)
    target = path.target({":box_distribution": teacher})
    torch.testing.assert_close(target["sides"], teacher)
    loss: float = path({":box_distribution": student}, target, seen)["sides"].item()
    return loss


def sides(*locations: int) -> Tensor:
    """Return logits of two bins a side; of each location so many sides, from the left one on, are (2 ln 3, 0)."""
    logits = torch.zeros(4, 2, len(locations))
    for location, number in enumerate(locations):
        logits[:number, 0, location] = 2 * math.log(3)
    return logits.reshape(1, 8, len(locations))


OBJECT = [0.0, 0.0, 8.0, 8.0]
NEAR = [8.0, 2.0, 12.0, 6.0]
"""Twice as large it is (6, 0, 14, 8): IoU with the object 16 / 112, distance 36 / 260: DIoU 0.00440."""
FAR = [40.0, 40.0, 44.0, 44.0]
LOCATIONS = Fixed([[2, 2, 6, 6], [3, 3, 5, 5], NEAR, FAR], [[True, True, False, False]])
"""Two positive locations, the second of which agrees below; one near the object; one far from it."""


def golden_main_region(cls: type[Path]) -> None:
    # T = 2: (2 ln 3, 0) / 2 is (3/4, 1/4).  One of four sides of one of two positive locations: 4 * HALVES / 4 / 2.
    # The others are in no region: the anchor is too far by 0.005.
    options = {"temperature": 2.0, "anchor_scale": 2.0, "valuable_iou": 0.005}
    seen = batch(([OBJECT, FAR], [False, True]))
    found = loss_of(cls(main=3.0, **options), sides(0, 0, 0, 0), sides(1, 0, 4, 4), LOCATIONS, seen)
    assert found == pytest.approx(3 * HALVES / 2)


def golden_valuable_region(cls: type[Path]) -> None:
    # By 0.004 the third location is valuable: two sides differ, 4 * HALVES * 2/4.  The last one's object is ignored.
    options = {"temperature": 2.0, "anchor_scale": 2.0, "valuable_iou": 0.004}
    seen = batch(([OBJECT, FAR], [False, True]))
    found = loss_of(cls(main=0.0, valuable=5.0, **options), sides(0, 0, 0, 0), sides(4, 4, 2, 4), LOCATIONS, seen)
    assert found == pytest.approx(5 * 2 * HALVES)
    found = loss_of(cls(main=1.0, valuable=1.0, **options), sides(0, 0, 0, 0), sides(4, 4, 2, 4), LOCATIONS, seen)
    assert found == pytest.approx(6 * HALVES)


def golden_the_direction_of_the_divergence(cls: type[Path]) -> None:
    # The student is (3/4, 1/4) and the teacher even: ln(1/2 / 3/4) / 2 + ln(1/2 / 1/4) / 2 on all sides, times T^2.
    seen = batch(([OBJECT], [False]))
    found = loss_of(cls(temperature=2.0), sides(4), sides(0), Fixed([NEAR], [[True]]), seen)
    assert found == pytest.approx(4 * (math.log(2 / 3) + math.log(2)) / 2)


def golden_images_share_a_region(cls: type[Path]) -> None:
    # Three positive locations in two images, two in the first, of which one differs on all sides: 4 * HALVES / 3.
    locations = Fixed([OBJECT, OBJECT], [[True, True], [True, False]])
    student, teacher = sides(0, 0).repeat(2, 1, 1), torch.cat([sides(4, 0), sides(0, 4)])
    options = {"temperature": 2.0, "valuable": 0.0}
    seen = batch(([OBJECT], [False]), ([OBJECT], [False]))
    assert loss_of(cls(**options), student, teacher, locations, seen) == pytest.approx(4 * HALVES / 3)


def golden_images_without_objects(cls: type[Path]) -> None:
    locations = Fixed([OBJECT], [[False]])
    assert loss_of(cls(), sides(0), sides(4), locations, batch(([], []))) == 0


GOLDENS = {
    "LD": (
        golden_main_region,
        golden_valuable_region,
        golden_the_direction_of_the_divergence,
        golden_images_share_a_region,
        golden_images_without_objects,
    )
}


def reference(path: Path, student: dict[str, Tensor], teacher: dict[str, Tensor]) -> dict[str, float]:
    """Location by location, side by side; where the family's locations are, see detection_cases."""
    s, t = (side[":box_distribution"].tolist() for side in (student, teacher))
    number = len(s[0][0])
    anchors = [(4.0 * (place % 4) + 2, 3.0 * (place // 4) + 1.5) for place in range(number)]
    total = 0.0
    for weight, region in ((path.main, _is_main), (path.valuable, _is_valuable)):
        chosen = [place for place in range(number) if region(path, anchors[place])]
        values = [_divergence(path, one, other, place) for one, other in zip(s, t, strict=True) for place in chosen]
        total += weight * sum(values) / max(len(values), 1)
    return {"sides": path.temperature**2 * total}


def _is_main(path: Path, centre: tuple[float, float]) -> bool:
    x, y = centre
    return any(left < x < right and top < y < bottom for left, top, right, bottom in BOXES[:2])


def _is_valuable(path: Path, centre: tuple[float, float]) -> bool:
    if _is_main(path, centre):
        return False
    x, y, reach = *centre, path.anchor_scale / 2
    anchor = (x - reach, y - reach, x + reach, y + reach)
    return any(_diou(anchor, box) >= path.valuable_iou for box in BOXES[:2])


def _diou(one: Any, other: Any) -> float:
    across = max(min(one[2], other[2]) - max(one[0], other[0]), 0)
    down = max(min(one[3], other[3]) - max(one[1], other[1]), 0)
    areas = [(box[2] - box[0]) * (box[3] - box[1]) for box in (one, other)]
    centres = [((box[0] + box[2]) / 2, (box[1] + box[3]) / 2) for box in (one, other)]
    wide, high = (max(one[i + 2], other[i + 2]) - min(one[i], other[i]) for i in (0, 1))
    return across * down / (sum(areas) - across * down) - math.dist(*centres) ** 2 / (wide**2 + high**2)


def _divergence(path: Path, s: Any, t: Any, place: int) -> float:
    total = 0.0
    for side in range(4):
        rows = range(side * BINS, (side + 1) * BINS)
        p, q = (naive_softmax([maps[row][place] / path.temperature for row in rows]) for maps in (t, s))
        total += sum(a * math.log(a / b) for a, b in zip(p, q, strict=True)) / 4
    return total


def test_both_regions_are_looked_at_in_the_family() -> None:
    case = make_case("LD", student=((3, 6, 8),), teacher=((3, 6, 8),))
    case.path.valuable_iou = 0.02
    anchors = case.path._locations.anchors(torch.device("cpu"))
    centres = [((left + right) / 2, (top + bottom) / 2) for left, top, right, bottom in anchors.tolist()]
    kinds = [(_is_main(case.path, centre), _is_valuable(case.path, centre)) for centre in centres]
    assert {(True, False), (False, True), (False, False)} == set(kinds)
    assert case.loss().item() == pytest.approx(reference(case.path, case.student, case.teacher)["sides"], rel=1e-9)


def test_a_student_like_the_teacher_costs_nothing() -> None:
    case = make_case("LD")
    case.student = case.teacher
    assert case.loss().item() == pytest.approx(0, abs=1e-14)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"main": -1}, "main must be a finite number of at least 0, found -1"),
        ({"valuable": -1}, "valuable must be a finite number of at least 0, found -1"),
        ({"temperature": 0}, "temperature must be a finite number above 0, found 0"),
        ({"valuable_iou": 1}, "valuable_iou must be a finite number of at least -1 and below 1, found 1"),
        ({"anchor_scale": 0}, "anchor_scale must be a finite number above 0, found 0"),
    ],
)
def test_options_out_of_bounds(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=f"^{message}$"):
        LD(**options)


@pytest.mark.parametrize("role", ["student", "teacher"])
def test_models_without_distributions_are_refused(role: str) -> None:
    sides = [detector_probe([(1, 2, 3)], 6)] * 2
    sides[role == "teacher"] = make_probe("s", [(1, 2, 3)], labelled="objects")
    with pytest.raises(ValueError, match=rf"^LD compares distributions of the sides of boxes, but the {role}'s head"):
        LD().connect(*sides)


def test_other_locations_are_refused() -> None:
    with pytest.raises(
        ValueError, match=r"student gives \[12, 6\] and the teacher \[12, 8\] a sample: both models must"
    ):
        LD().connect(detector_probe([(1, 2, 3)], 6), detector_probe([(1, 2, 4)], 8))


def test_without_objects_it_does_not_connect() -> None:
    probe = replace(detector_probe([(1, 2, 3)], 6), labelled="pixels")
    with pytest.raises(ValueError, match=r"^LD reads the classes of objects, but in this task pixels have them$"):
        LD().connect(probe, probe)


def test_a_batch_of_classes_is_refused() -> None:
    case = make_case("LD")
    with pytest.raises(ValueError, match=r"labelled with classes here, where objects are needed"):
        case.path(case.student, case.target(), batch_of(3))


MUTANTS = {
    "LD": [
        ("logits.reshape(len(logits), 4, -1,", "logits.reshape(len(logits), -1, 4,"),
        ("sides / self.temperature", "sides"),
        ("self.temperature**2 * loss", "loss"),
        ("log_p.exp() * (log_p - log_q)", "log_q.exp() * (log_q - log_p)"),
        (".clamp_min(0).mean(dim=1)", ".clamp_min(0).sum(dim=1)"),
        (" & ~main", ""),
        ("self.main * _mean", "_mean"),
        ("self.valuable * _mean", "_mean"),
        ("boxes[~ignored]) >=", "boxes) >="),
        (">= self.valuable_iou", "<= self.valuable_iou"),
        ("reach = self.anchor_scale / 2", "reach = self.anchor_scale"),
        ("x - reach * width, y - reach * height", "x - reach * height / 4, y - reach * width / 4"),
        ("(values * chosen).sum() / chosen.sum().clamp_min(1)", "(values * chosen).mean()"),
        (" / chosen.sum().clamp_min(1)", ""),
        ("chosen.sum().clamp_min(1)", "chosen.sum()"),
        ("(areas - shared + EPSILON) - distance", "(areas - shared + EPSILON) + distance"),
        ("(areas - shared + EPSILON) - distance", "(areas - shared + EPSILON)"),
        ("(areas - shared + EPSILON) - distance", "(areas + EPSILON) - distance"),
        ("- other[..., :2] - other[..., 2:]) / 2", "- other[..., :2] - other[..., 2:])"),
    ],
}
"""Changes of the source that a golden value notices; see test_mutants."""
