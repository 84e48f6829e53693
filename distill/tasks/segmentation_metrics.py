"""How well pixels are classified."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from distill import distributed
from distill.batch import Batch
from distill.data.annotation.mask import IGNORE
from distill.tasks.base import Metrics
from distill.tasks.segmentation_output import at_size, heads


class SegmentationMetrics(Metrics):
    """Mean intersection over union, that of each class, pixel accuracy, agreement with the teacher, loss.

    All come from one confusion matrix of the split's known pixels, added over all ranks. The mean is over the classes
    that occur in the masks or in the answers; a class that occurs in neither has no value. Agreement is the share of
    all pixels, known or not, that student and teacher give the same class; where the logits of either are coarser than
    the masks, a pixel has the class of its place in them.

    Args:
        classes: the classes' names.
        device: where the outputs are.
    """

    def __init__(self, classes: Sequence[str], device: torch.device) -> None:
        from torchmetrics import MeanMetric

        self._classes = tuple(classes)
        # torchmetrics' confusion matrix sorts all pixels to check them, and compares each with each cell where torch is
        # deterministic: gigabytes a batch.
        self._confusion = torch.zeros(len(classes) ** 2, dtype=torch.int64, device=device)
        self._agreement = MeanMetric().to(device)
        self._loss = MeanMetric().to(device)
        self._has_teacher = False

    def update(self, output: Any, batch: Batch, teacher: Tensor | None) -> None:
        """Take in one batch."""
        labels = batch.classes
        own = heads(output)[0]
        logits = at_size(own.float(), labels)
        answers = logits.argmax(1)
        known = labels != IGNORE
        cells = labels[known] * len(self._classes) + answers[known]
        self._confusion += torch.bincount(cells, minlength=len(self._confusion))
        losses = F.cross_entropy(logits, labels, ignore_index=IGNORE, reduction="none")
        self._loss.update(losses[known])
        if teacher is not None:
            self._has_teacher = True
            same = _enlarged(own.argmax(1), labels) == _enlarged(teacher, labels)
            self._agreement.update(same.float())

    def compute(self) -> dict[str, float]:
        """Return ``miou``, ``pixel_accuracy``, ``agreement``, ``iou/CLASS`` of each class in percent, and ``loss``."""
        counts = distributed.sum(self._confusion).double()
        matrix = counts.reshape(len(self._classes), -1)  # [true class, answered class]
        hits = matrix.diagonal()
        union = matrix.sum(0) + matrix.sum(1) - hits
        occurs = union > 0
        shares = 100 * hits / union.clamp_min(1)
        values = {
            "loss": float(self._loss.compute()),
            "miou": float(shares[occurs].mean()) if bool(occurs.any()) else 0.0,
            "pixel_accuracy": float(100 * hits.sum() / matrix.sum().clamp_min(1)),
        }
        if distributed.any_rank(self._has_teacher, self._loss.device):
            values["agreement"] = 100 * float(self._agreement.compute())
        names = zip(self._classes, occurs.tolist(), shares.tolist(), strict=True)
        return values | {f"iou/{name}": share for name, is_there, share in names if is_there}


def _enlarged(classes: Tensor, masks: Tensor) -> Tensor:
    """Return classes ``[batch, ...]`` at the height and width of masks ``[batch, height, width]``."""
    if classes.shape[1:] == masks.shape[1:]:
        return classes
    return F.interpolate(classes[:, None].to(torch.uint8), size=masks.shape[1:], mode="nearest-exact")[:, 0]
