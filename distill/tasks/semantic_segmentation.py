"""Semantic segmentation: cross-entropy of every pixel; intersection over union, pixel accuracy, agreement."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from distill.batch import Batch
from distill.data.annotation import Mask
from distill.data.annotation.mask import IGNORE
from distill.objects import Labels
from distill.taps import OUTPUT, Probe
from distill.tasks.base import Task
from distill.tasks.drawing import Drawing, draw_masks
from distill.tasks.logits_model import LogitsModel
from distill.tasks.segmentation_metrics import SegmentationMetrics
from distill.tasks.segmentation_output import at_size, heads


class SemanticSegmentation(Task):
    """The class of every pixel.

    The loss is the cross-entropy of each pixel whose class is known, in float32, and the mean of these over the batch;
    with several workers, over a worker's share. A batch without a known pixel costs nothing. Models return logits
    ``[batch, class, height, width]``, or as torchvision's a mapping with them under ``out`` and those of an auxiliary
    head under ``aux``, whose loss counts with ``auxiliary_weight`` (torchvision's references: 0.5). Logits of another
    size than the masks are resized to theirs, bilinearly.

    Args:
        auxiliary_weight: weight of the auxiliary head's loss, at least 0.
        class_weights: weight of each class's pixels, by label, in the mean of the cross-entropy; ``None``: all alike.

    Raises:
        ValueError: a weight is negative, or none is above 0.
    """

    metric = "miou"
    metrics_known = ("miou", "pixel_accuracy", "agreement", "loss")
    annotation = Mask
    draws = True

    def __init__(self, auxiliary_weight: float = 0.5, class_weights: Sequence[float] | None = None) -> None:
        if auxiliary_weight < 0:
            raise ValueError(f"auxiliary_weight must not be negative, found {auxiliary_weight}")
        if class_weights is not None and (min(class_weights, default=0) < 0 or max(class_weights, default=0) <= 0):
            raise ValueError(f"class_weights must be at least 0, and one above 0, found {list(class_weights)}")
        self.auxiliary_weight = auxiliary_weight
        self.class_weights = None if class_weights is None else tuple(class_weights)

    def loss(self, output: Any, batch: Batch) -> Tensor:
        """Return the mean cross-entropy of the known pixels, auxiliary heads included."""
        main, *auxiliary = heads(output)
        total = self._cross_entropy(main, batch.classes)
        for head in auxiliary:
            total = total + self.auxiliary_weight * self._cross_entropy(head, batch.classes)
        return total

    def _cross_entropy(self, logits: Tensor, labels: Tensor) -> Tensor:
        resized = at_size(logits.float(), labels)
        weights = None if self.class_weights is None else resized.new_tensor(self.class_weights)
        total = F.cross_entropy(resized, labels, weight=weights, ignore_index=IGNORE, reduction="sum")
        known = labels != IGNORE
        count = known.sum() if weights is None else weights[labels.where(known, 0)].mul(known).sum()
        return total / count.clamp_min(torch.finfo(torch.float32).tiny)

    def outputs(self, output: Any) -> dict[str, Tensor]:
        """Return the main head's logits, ``[batch, class, height, width]``."""
        return {OUTPUT: heads(output)[0]}

    def answer(self, outputs: Mapping[str, Tensor]) -> Tensor:
        """Return the likeliest class of each pixel, ``[batch, height, width]``, uint8."""
        return outputs[OUTPUT].argmax(1).to(torch.uint8)

    def exported(self, model: nn.Module) -> nn.Module:
        """Return what gives logits at the size of the images, ``[batch, class, height, width]``."""

        def run(model: nn.Module, images: Tensor) -> Tensor:
            return at_size(self.logits(self.run(model, images)), images[:, 0])

        return LogitsModel(model, run, lambda logits: logits)

    def draw_labels(self, images: Sequence[Tensor], labels: Labels, classes: Sequence[str]) -> Drawing:
        """Lay the known classes over the images."""
        assert isinstance(labels, Tensor)
        return draw_masks(images, labels, classes)

    def draw_output(self, images: Sequence[Tensor], output: Any, classes: Sequence[str]) -> Drawing:
        """Lay the likeliest classes over the images."""
        return draw_masks(images, self.answer(self.outputs(output)), classes)

    def metrics(self, classes: Sequence[str], device: torch.device) -> SegmentationMetrics:
        return SegmentationMetrics(classes, device)

    def misfit(self, found: Probe, num_classes: int) -> str:
        if len(found.output_shape) != 3:
            return f"gives {list(found.output_shape)} an image, where logits [class, height, width] are needed"
        return super().misfit(found, num_classes)

    def check_classes(self, num_classes: int) -> None:
        if self.class_weights is not None and len(self.class_weights) != num_classes:
            raise ValueError(
                f"class_weights must be one for each of the {num_classes} classes, found {len(self.class_weights)}"
            )
