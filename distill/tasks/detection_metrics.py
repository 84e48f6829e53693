"""How well objects are found."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from distill import distributed
from distill.batch import Batch
from distill.random_state import random_state, seed_torch, set_random_state
from distill.tasks.average_precision import OVERLAPS, Found, There, average_precision
from distill.tasks.base import Metrics
from distill.tasks.detectors import DetectorOutput, family_of


class _Image(NamedTuple):
    position: int
    loss: float
    found: Found
    there: There


class DetectionMetrics(Metrics):
    """Average precision as COCO defines it, and the loss.

    ``ap/CLASS`` is the mean over ten overlaps of boxes, 0.50, 0.55, ..., 0.95; ``map`` is its mean over the classes
    that occur, ``map_50`` and ``map_75`` are those at one overlap. A class without objects has no value. Whatever falls
    on an ignored object counts neither way. See :func:`~distill.tasks.average_precision.average_precision`.

    The loss is the mean over the images, each as a batch of its own; what a loss draws at random (Faster R-CNN's
    anchors and regions) is drawn by the image's index. So it depends neither on the batches nor on the number of ranks.

    Args:
        classes: the classes' names, the background first.
    """

    def __init__(self, classes: Sequence[str]) -> None:
        self._classes = tuple(classes)
        self._images: list[_Image] = []

    def update(self, output: DetectorOutput, batch: Batch, teacher: Tensor | None) -> None:
        """Take in one batch."""
        objects = batch.objects
        found = [
            Found(each["boxes"].cpu(), each["scores"].cpu(), each["labels"].cpu())
            for each in family_of(output.model).detections(output)
        ]
        there = [
            There(boxes.cpu(), labels.cpu(), ignored.cpu())
            for boxes, labels, ignored in zip(objects.boxes, objects.labels, objects.ignored, strict=True)
        ]
        losses = _losses_of_images(output, batch).tolist()
        self._images += map(_Image, batch.indices.tolist(), losses, found, there)

    def compute(self) -> dict[str, float]:
        """Return ``map``, ``map_50``, ``map_75``, ``ap/CLASS`` of each class in percent, and ``loss``."""
        images = [image for part in distributed.gather_objects(self._images) for image in part]
        # Equal scores rank in the order of the images, which shall not depend on the ranks.
        images.sort(key=lambda image: image.position)
        shares = average_precision(
            [image.found for image in images], [image.there for image in images], len(self._classes)
        )  # [class, overlap]
        means = shares.nanmean(dim=0).nan_to_num(0.0)  # [overlap]
        by_class = zip(self._classes, shares.mean(dim=1).tolist(), strict=True)
        return {
            "loss": sum(image.loss for image in images) / max(1, len(images)),
            "map": 100 * float(means.mean()),
            "map_50": 100 * float(means[OVERLAPS.index(0.5)]),
            "map_75": 100 * float(means[OVERLAPS.index(0.75)]),
            **{f"ap/{name}": 100 * share for name, share in by_class if not math.isnan(share)},
        }


def _losses_of_images(output: DetectorOutput, batch: Batch) -> Tensor:
    """Return the loss of each image, ``[batch]``; random generators are left as they were."""
    family = family_of(output.model)
    drawn = random_state()
    losses = []
    for number, (index, target) in enumerate(zip(batch.indices.tolist(), batch.objects.trained(), strict=True)):
        seed_torch(index, batch.images.device)
        losses.append(torch.stack(list(family.losses(output.image(number), [target]).values())).sum())
    set_random_state(drawn)
    return torch.stack(losses)
