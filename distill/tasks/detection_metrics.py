"""How well objects are found."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from distill import distributed
from distill.batch import Batch
from distill.random_state import random_state, set_random_state
from distill.tasks.base import Metrics
from distill.tasks.detectors import DetectorOutput, family_of


class _Image(NamedTuple):
    position: int
    loss: float
    found: dict[str, Tensor]
    there: dict[str, Tensor]


class DetectionMetrics(Metrics):
    """Average precision as COCO defines it, and the loss.

    The average precision of a class is the mean of its precision at 101 recalls and at ten overlaps of boxes, 0.50,
    0.55, ..., 0.95; ``map`` is its mean over the classes that occur, ``map_50`` and ``map_75`` are those at one
    overlap. Of an image the 100 likeliest boxes of a class count. Whatever falls on an ignored object counts neither
    way. A class without objects has no value.

    The loss is the mean over the images, each as a batch of its own; what a loss draws at random (Faster R-CNN's
    anchors and regions) is drawn by the image's index. So it depends neither on the batches nor on the number of ranks.

    Source: ``torchmetrics.detection.MeanAveragePrecision`` on ``pycocotools``.

    Args:
        classes: the classes' names, the background first.
    """

    def __init__(self, classes: Sequence[str]) -> None:
        self._classes = tuple(classes)
        self._images: list[_Image] = []

    def update(self, output: DetectorOutput, batch: Batch, teacher: Tensor | None) -> None:
        """Take in one batch."""
        family = family_of(output.model)
        objects = batch.objects
        found = [_on_cpu(each) for each in family.detections(output)]
        losses = _losses_of_images(output, batch).tolist()
        there = [
            _on_cpu({"boxes": boxes, "labels": labels, "iscrowd": ignored.long()})
            for boxes, labels, ignored in zip(objects.boxes, objects.labels, objects.ignored, strict=True)
        ]
        self._images += map(_Image, batch.indices.tolist(), losses, found, there)

    def compute(self) -> dict[str, float]:
        """Return ``map``, ``map_50``, ``map_75``, ``ap/CLASS`` of each class in percent, and ``loss``."""
        from torchmetrics.detection import MeanAveragePrecision

        shares = distributed.gather_objects(self._images)
        # Equal scores rank in the order of the images, which shall not depend on the ranks.
        images = sorted((image for share in shares for image in share), key=lambda image: image.position)
        metric = MeanAveragePrecision(extended_summary=True, sync_on_compute=False)
        metric.warn_on_many_detections = False
        metric.update([image.found for image in images], [image.there for image in images])
        told = metric.compute()
        values = {name: _percent(told[name]) for name in ("map", "map_50", "map_75")}
        values["loss"] = sum(image.loss for image in images) / max(1, len(images))
        return values | self._by_class(told)

    def _by_class(self, told: dict[str, Any]) -> dict[str, float]:
        precision = told.get("precision")  # [overlap, recall, class, area, number of boxes]
        if precision is None:
            return {}
        by_class = precision[:, :, :, 0, -1].permute(2, 0, 1).flatten(1)  # -1 where a class has no objects
        return {
            f"ap/{self._classes[label]}": 100 * float(values.mean())
            for label, values in zip(told["classes"].reshape(-1).tolist(), by_class, strict=True)
            if bool((values >= 0).all())
        }


def _losses_of_images(output: DetectorOutput, batch: Batch) -> Tensor:
    """Return the loss of each image, ``[batch]``; random generators are left as they were."""
    family = family_of(output.model)
    drawn = random_state()
    losses = []
    for number, (index, target) in enumerate(zip(batch.indices.tolist(), batch.objects.trained(), strict=True)):
        torch.manual_seed(index)
        losses.append(torch.stack(list(family.losses(output.image(number), [target]).values())).sum())
    set_random_state(drawn)
    return torch.stack(losses)


def _on_cpu(values: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: value.cpu() for name, value in values.items()}


def _percent(share: Tensor) -> float:
    """Return a share in percent; torchmetrics says -1 where nothing is to be found."""
    return 100 * max(0.0, float(share))
