"""RetinaNet."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from distill.late import models
from distill.tasks.detectors.one_stage import OneStage, level_by_level
from distill.tasks.detectors.output import DetectorOutput


class RetinaNetFamily(OneStage):
    """torchvision's RetinaNet: sigmoid focal loss, L1 of the box offsets where an object matches the anchor.

    Source: Lin et al. 2017, *Focal loss for dense object detection* (ICCV, arXiv:1708.02002).
    """

    independent = True

    def fits(self, model: nn.Module) -> bool:
        return isinstance(model, models.detection.RetinaNet)

    def losses(self, output: DetectorOutput, targets: list[dict[str, Tensor]]) -> dict[str, Tensor]:
        model: Any = output.model
        losses: dict[str, Tensor] = model.compute_loss(
            targets, self.said(output), output.anchors(model.anchor_generator)
        )
        return losses

    def detections(self, output: DetectorOutput) -> list[dict[str, Tensor]]:
        model: Any = output.model
        said, anchors = level_by_level(output, self.said(output), model.anchor_generator)
        found: list[dict[str, Tensor]] = model.postprocess_detections(said, anchors, [output.size] * len(output))
        return found
