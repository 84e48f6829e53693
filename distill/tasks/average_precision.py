"""Average precision as COCO defines it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

OVERLAPS = tuple(round(0.5 + 0.05 * step, 2) for step in range(10))
"""The overlaps of boxes (intersection over union) from which on an object counts as found."""

MOST_BOXES = 100
"""Boxes of a class that count in an image, the likeliest first."""


class Found(NamedTuple):
    """The boxes found in an image: ``boxes`` ``[box, 4]``, ``scores`` and ``labels`` ``[box]``, on the CPU."""

    boxes: Tensor
    scores: Tensor
    labels: Tensor


class There(NamedTuple):
    """The objects of an image, see :class:`~distill.objects.Objects`, on the CPU."""

    boxes: Tensor
    labels: Tensor
    ignored: Tensor


def average_precision(found: Sequence[Found], there: Sequence[There], num_classes: int) -> Tensor:
    """Return the average precision of each class at each of the overlaps, ``[class, overlap]``, as shares.

    It is the mean of the precision at 101 recalls, as COCO's own code computes it (here the C++ of
    ``faster-coco-eval``), for objects of all sizes; torchmetrics' differs by a point where a recall lies on one of the
    101, which it rounds to float32. Ignored objects are COCO's crowds. The background, and classes of
    which no image has an object, have NaN.

    Args:
        found: image by image; equal scores rank in the order of the images.
        there: image by image.
        num_classes: the background included.
    """
    from faster_coco_eval import COCO, COCOeval_faster

    objects = [
        {"image_id": image, "category_id": label, **_box(box), "iscrowd": int(ignored)}
        for image, each in enumerate(there)
        for box, label, ignored in zip(*(values.tolist() for values in each), strict=True)
    ]
    boxes = [
        {"image_id": image, "category_id": label, **_box(box), "iscrowd": 0, "score": score}
        for image, each in enumerate(found)
        for box, score, label in zip(*(values.tolist() for values in each), strict=True)
    ]
    sides = []
    for content in (objects, boxes):
        side = COCO()
        side.dataset = {
            "images": [{"id": image} for image in range(len(there))],
            "categories": [{"id": label, "name": str(label)} for label in range(num_classes)],
            "annotations": [{"id": number, **each} for number, each in enumerate(content, start=1)],
        }
        side.createIndex()
        sides.append(side)
    evaluation = COCOeval_faster(*sides, iouType="bbox", print_function=lambda *words: None)
    evaluation.params.areaRng, evaluation.params.areaRngLbl = [[0, 1e10]], ["all"]
    evaluation.params.maxDets = [MOST_BOXES]
    evaluation.evaluate()
    evaluation.accumulate()
    precision = torch.as_tensor(np.asarray(evaluation.eval["precision"]))  # [overlap, recall, class, area, most boxes]
    means = precision[:, :, :, 0, 0].mean(dim=1).T
    return means.where(means >= 0, torch.nan)  # -1: nothing is to be found


def _box(corners: Sequence[float]) -> dict[str, Any]:
    left, top, right, bottom = corners
    return {"bbox": [left, top, right - left, bottom - top], "area": (right - left) * (bottom - top)}
