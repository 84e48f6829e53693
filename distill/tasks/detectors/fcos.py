"""FCOS."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from distill.late import models
from distill.tasks.detectors.one_stage import OneStage, level_by_level, places
from distill.tasks.detectors.output import DetectorOutput

CENTERNESS = ":centerness"
"""The tap name of the logits of how near its object's centre a location is, ``[batch, 1, location]``."""


class FCOSFamily(OneStage):
    """torchvision's FCOS: sigmoid focal loss, GIoU loss of the boxes, binary cross-entropy of the centreness.

    Source: Tian et al. 2019, *FCOS: fully convolutional one-stage object detection* (ICCV, arXiv:1904.01355).
    """

    independent = True
    named = {**OneStage.named, CENTERNESS: "bbox_ctrness"}  # noqa: RUF012

    def fits(self, model: nn.Module) -> bool:
        return isinstance(model, models.detection.FCOS)

    def losses(self, output: DetectorOutput, targets: list[dict[str, Tensor]]) -> dict[str, Tensor]:
        model: Any = output.model
        anchors, numbers = output.anchors(model.anchor_generator), places(output, model.anchor_generator)
        losses: dict[str, Tensor] = model.compute_loss(targets, self.said(output), anchors, numbers)
        return losses

    def detections(self, output: DetectorOutput) -> list[dict[str, Tensor]]:
        model: Any = output.model
        said, anchors = level_by_level(output, self.said(output), model.anchor_generator)
        found: list[dict[str, Tensor]] = model.postprocess_detections(said, anchors, [output.size] * len(output))
        return found
