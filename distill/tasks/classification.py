"""Image classification: cross-entropy; accuracy, agreement with the teacher, calibration."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from distill import distributed
from distill.batch import Batch
from distill.taps import OUTPUT, Probe
from distill.tasks.base import Metrics, Task

TOP = 5
"""With no more classes than this, top-5 accuracy says nothing."""


class Classification(Task):
    """Image classification with one label an image.

    The loss is cross-entropy, in float32. Models with auxiliary heads (GoogLeNet, Inception) return named tuples in
    training mode; their auxiliary losses count with weight ``auxiliary_weight``, as in torchvision's references.

    Args:
        label_smoothing: share of the label's probability spread over all classes, in [0, 1).
        auxiliary_weight: weight of each auxiliary head's loss.
    """

    metric = "accuracy"
    metrics_known = ("accuracy", "top5", "agreement", "calibration_error", "loss")
    smaller_is_better = frozenset({"calibration_error", "loss"})
    eval_batch_size = 256

    def __init__(self, label_smoothing: float = 0.0, auxiliary_weight: float = 0.4) -> None:
        if not 0.0 <= label_smoothing < 1.0:
            raise ValueError(f"label_smoothing must lie in [0, 1), found {label_smoothing}")
        if auxiliary_weight < 0:
            raise ValueError(f"auxiliary_weight must not be negative, found {auxiliary_weight}")
        self.label_smoothing = label_smoothing
        self.auxiliary_weight = auxiliary_weight

    def loss(self, output: Any, batch: Batch) -> Tensor:
        """Return the mean cross-entropy, auxiliary heads included."""
        main, *auxiliary = _heads(output)
        total = self._cross_entropy(main, batch.classes)
        for head in auxiliary:
            total = total + self.auxiliary_weight * self._cross_entropy(head, batch.classes)
        return total

    def _cross_entropy(self, logits: Tensor, labels: Tensor) -> Tensor:
        return F.cross_entropy(logits.float(), labels, label_smoothing=self.label_smoothing)

    def outputs(self, output: Any) -> dict[str, Tensor]:
        """Return the main head's logits, ``[batch, class]``."""
        return {OUTPUT: _heads(output)[0]}

    def answer(self, outputs: Mapping[str, Tensor]) -> Tensor:
        """Return the likeliest class of each image, ``[batch]``, int64."""
        return outputs[OUTPUT].argmax(1)

    def exported(self, model: nn.Module) -> nn.Module:
        """Return the model itself: in evaluation mode it returns its logits."""
        return model

    def metrics(self, classes: Sequence[str], device: torch.device) -> ClassificationMetrics:
        return ClassificationMetrics(len(classes), device)

    def misfit(self, found: Probe, num_classes: int) -> str:
        if found.output_shape == (num_classes,):
            return ""
        return f"gives {list(found.output_shape)} logits an image, but the data have {num_classes} classes"

    def unranked(self, metric: str, num_classes: int) -> str:
        if metric != "top5" or num_classes > TOP:
            return ""
        return f"with {num_classes} classes, of which five hit nearly always"


class ClassificationMetrics(Metrics):
    """Loss, top-1 and top-5 accuracy, agreement with the teacher, expected calibration error (15 bins).

    Sums and counts are added over all ranks before the division, so unequal shards are exact. Top-5 is left out below
    six classes, where it says nothing.
    """

    def __init__(self, num_classes: int, device: torch.device) -> None:
        from torchmetrics import MeanMetric
        from torchmetrics.classification import MulticlassAccuracy, MulticlassCalibrationError

        self._accuracy = MulticlassAccuracy(num_classes, average="micro").to(device)
        self._top5 = (
            MulticlassAccuracy(num_classes, average="micro", top_k=TOP).to(device) if num_classes > TOP else None
        )
        self._agreement = MulticlassAccuracy(num_classes, average="micro").to(device)
        self._calibration = MulticlassCalibrationError(num_classes, n_bins=15, norm="l1").to(device)
        self._loss = MeanMetric().to(device)
        self._has_teacher = False

    def update(self, output: Any, batch: Batch, teacher: Tensor | None) -> None:
        """Take in one batch."""
        logits = _heads(output)[0].float()
        self._accuracy.update(logits, batch.classes)
        if self._top5 is not None:
            self._top5.update(logits, batch.classes)
        self._calibration.update(logits.softmax(1), batch.classes)
        self._loss.update(F.cross_entropy(logits, batch.classes, reduction="none"))
        if teacher is not None:
            self._has_teacher = True
            self._agreement.update(logits, teacher)

    def compute(self) -> dict[str, float]:
        """Return ``accuracy``, ``top5``, ``agreement``, ``calibration_error`` in percent, and ``loss``."""
        values = {
            "loss": float(self._loss.compute()),
            "accuracy": 100 * float(self._accuracy.compute()),
            "calibration_error": 100 * float(self._calibration.compute()),
        }
        if self._top5 is not None:
            values["top5"] = 100 * float(self._top5.compute())
        if distributed.any_rank(self._has_teacher, self._loss.device):
            values["agreement"] = 100 * float(self._agreement.compute())
        return values


def _heads(output: Any) -> list[Tensor]:
    """Return the main logits and those of auxiliary heads; a head switched off is ``None`` and left out."""
    if torch.is_tensor(output):
        return [output]
    if isinstance(output, tuple) and output and torch.is_tensor(output[0]):
        return [head for head in output if head is not None]
    raise ValueError(f"a classifier must return logits or a tuple of logits, found {type(output).__name__}")
