"""What detection draws: known boxes that count, and what was found with some certainty."""

from __future__ import annotations

import torch
from detector_samples import CLASSES

from distill.objects import Objects
from distill.tasks import Detection
from distill.tasks.detection import SHOWN_BOXES
from distill.tasks.drawing import class_color

IMAGE = torch.zeros(3, 240, 240, dtype=torch.uint8)


class Told(Detection):
    """Finds what it is told."""

    def __init__(self, scores, labels):
        number = len(scores)
        corners = torch.arange(number)[:, None] * torch.tensor([11.0, 0.0, 11.0, 0.0])
        self.found = {
            "boxes": torch.tensor([10.0, 20.0, 40.0, 60.0]) + corners,
            "scores": torch.tensor(scores),
            "labels": torch.tensor(labels),
        }

    def detections(self, output):
        return [self.found]


def test_known_boxes_are_drawn_without_those_that_do_not_count():
    known = Objects(
        (torch.tensor([[10.0, 20.0, 100.0, 120.0], [30.0, 30.0, 200.0, 200.0]]),),
        (torch.tensor([1, 2]),),
        (torch.tensor([False, True]),),
    )
    drawing = Detection().draw_labels([IMAGE], known, CLASSES)
    assert drawing.colors == {"square": class_color(1)}
    assert drawing.images[0][:, 150:].sum() == 0


def test_what_is_hardly_found_is_not_drawn():
    drawing = Told([0.2, 0.9, 0.31], [1, 2, 3]).draw_output([IMAGE], None, CLASSES)
    assert set(drawing.colors) == {"wide", "tall"}


def test_the_best_are_drawn_where_much_is_found():
    scores = [0.5] * SHOWN_BOXES + [0.9]
    labels = [1] * SHOWN_BOXES + [2]
    drawing = Told(scores, labels).draw_output([IMAGE], None, CLASSES)
    assert set(drawing.colors) == {"square", "wide"}
    few = Told([0.4, *scores], [3, *labels]).draw_output([IMAGE], None, CLASSES)
    assert set(few.colors) == {"square", "wide"}


def test_no_object_found_draws_nothing():
    drawing = Told([0.1], [1]).draw_output([IMAGE], None, CLASSES)
    assert drawing.images[0].sum() == 0


def test_of_boxes_round_one_object_the_surest_is_drawn():
    task = Told([0.5, 0.9], [1, 2])
    task.found["boxes"] = torch.tensor([[10.0, 20.0, 40.0, 60.0], [11.0, 20.0, 41.0, 60.0]])
    assert set(task.draw_output([IMAGE], None, CLASSES).colors) == {"wide"}
