"""Faster R-CNN."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from distill.late import models
from distill.taps import OUTPUT, Head
from distill.tasks.detectors.base import DetectorFamily
from distill.tasks.detectors.one_stage import boxes_of, maps_of
from distill.tasks.detectors.output import BOXES, DetectorOutput
from distill.tasks.detectors.regions import FasterRCNNRegions, look_at, proposals


class FasterRCNNFamily(DetectorFamily):
    """torchvision's Faster R-CNN: the losses of the region proposal network and of the second stage.

    By location it says whether there is an object at all: the logits are the proposal network's, of one class. Which
    class it is the second stage says of regions, see :class:`~distill.tasks.detectors.regions.FasterRCNNRegions`.

    Both stages draw the anchors and regions that they train on from torch's generator.

    Source: Ren et al. 2015, *Faster R-CNN: towards real-time object detection with region proposal networks* (NeurIPS,
    arXiv:1506.01497).
    """

    independent = True

    def fits(self, model: nn.Module) -> bool:
        return isinstance(model, models.detection.FasterRCNN)

    def run(self, model: Any, images: Tensor) -> DetectorOutput:
        maps = maps_of(model, images)
        objectness, offsets = model.rpn.head(list(maps.values()))  # by level [batch, anchor * channel, height, width]
        parts = {OUTPUT: _flat(objectness, channels=1), BOXES: _flat(offsets, channels=4)}
        return DetectorOutput.of(model, images, parts, maps)

    def losses(self, output: DetectorOutput, targets: list[dict[str, Tensor]]) -> dict[str, Tensor]:
        model: Any = output.model
        rpn, second = model.rpn, model.roi_heads
        regions = proposals(output)
        anchors = output.anchors(rpn.anchor_generator)
        labels, matched = rpn.assign_targets_to_anchors(anchors, targets)
        objectness, offsets = rpn.compute_loss(
            output.by_location(OUTPUT).reshape(-1, 1),
            output.by_location(BOXES).reshape(-1, 4),
            labels,
            rpn.box_coder.encode(matched, anchors),
        )
        regions, _, classes, aims = second.select_training_samples(regions, targets)
        classification, boxes = models.detection.roi_heads.fastrcnn_loss(*look_at(output, regions), classes, aims)
        return {
            "loss_classifier": classification,
            "loss_box_reg": boxes,
            "loss_objectness": objectness,
            "loss_rpn_box_reg": offsets,
        }

    def detections(self, output: DetectorOutput) -> list[dict[str, Tensor]]:
        model: Any = output.model
        regions = proposals(output)
        sizes = [output.size] * len(output)
        found = model.roi_heads.postprocess_detections(*look_at(output, regions), regions, sizes)
        return [
            {"boxes": boxes, "scores": scores, "labels": labels} for boxes, scores, labels in zip(*found, strict=True)
        ]

    def head(self, output: DetectorOutput) -> Head:
        rpn: Any = output.model.rpn
        boxes = boxes_of(rpn.box_coder, rpn.anchor_generator)
        return Head(independent=True, regions=FasterRCNNRegions(output), boxes=boxes)


def _flat(by_level: Sequence[Tensor], channels: int) -> Tensor:
    """Return ``[batch, channel, location]`` of ``[batch, anchor * channel, height, width]`` of each level.

    As torchvision orders them: all anchors of a place follow one another.
    """
    flat = [
        maps.reshape(len(maps), -1, channels, *maps.shape[2:]).permute(0, 2, 3, 4, 1).flatten(2) for maps in by_level
    ]
    return torch.cat(flat, dim=2)
