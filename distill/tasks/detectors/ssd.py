"""SSD and SSDLite."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from distill.late import models, ops
from distill.tasks.detectors.one_stage import OneStage, nowhere
from distill.tasks.detectors.output import DetectorOutput


class SSDFamily(OneStage):
    """torchvision's SSD and SSDLite: cross-entropy of the objects and of the hardest background, smooth L1 of boxes.

    An image without objects has no background to compare them with: it costs nothing.

    Source: Liu et al. 2016, *SSD: single shot multibox detector* (ECCV, arXiv:1512.02325).
    """

    independent = False

    def fits(self, model: nn.Module) -> bool:
        return isinstance(model, models.detection.ssd.SSD)

    def losses(self, output: DetectorOutput, targets: list[dict[str, Tensor]]) -> dict[str, Tensor]:
        model: Any = output.model
        anchors = output.anchors(model.anchor_generator)
        matched = [
            model.proposal_matcher(ops.box_iou(target["boxes"], each)) if len(target["boxes"]) else nowhere(each)
            for target, each in zip(targets, anchors, strict=True)
        ]
        losses: dict[str, Tensor] = model.compute_loss(targets, self.said(output), anchors, matched)
        return losses

    def detections(self, output: DetectorOutput) -> list[dict[str, Tensor]]:
        model: Any = output.model
        anchors = output.anchors(model.anchor_generator)
        found: list[dict[str, Tensor]] = model.postprocess_detections(
            self.said(output), anchors, [output.size] * len(output)
        )
        return found
