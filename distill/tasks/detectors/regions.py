"""The second stage of Faster R-CNN."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from distill.taps import LEVEL, OUTPUT, RegionHead
from distill.taps.head import Maps
from distill.tasks.detectors.one_stage import places
from distill.tasks.detectors.output import BOXES, DetectorOutput


class FasterRCNNRegions(RegionHead):
    """The second stage of a Faster R-CNN of torchvision's.

    Args:
        output: of the model for images of the size that it will see; only what does not depend on the images is kept.
    """

    def __init__(self, output: DetectorOutput) -> None:
        self._output = replace(output, parts={})
        self.num_classes = _num_classes(output.model)

    def propose(self, outputs: Maps, number: int) -> Tensor:
        output = self._with(outputs)
        with torch.no_grad():
            found = proposals(output, number)
        return torch.stack([F.pad(boxes, (0, 0, 0, number - len(boxes))) for boxes in found])

    def describe(self, outputs: Maps, regions: Tensor) -> tuple[Tensor, Tensor]:
        output = self._with(outputs)
        logits, offsets = look_at(output, list(regions))
        shape = regions.shape[:2]
        return logits.reshape(*shape, -1), offsets.reshape(*shape, -1, 4)

    def _with(self, outputs: Maps) -> DetectorOutput:
        names = [OUTPUT, BOXES, *(name for name in outputs if name.startswith(LEVEL))]
        return replace(self._output, parts={name: outputs[name] for name in names})


def proposals(output: DetectorOutput, number: int | None = None) -> list[Tensor]:
    """Return for each image the boxes ``[region, 4]`` that the proposal network finds most likely, without gradient.

    Args:
        output: of the model.
        number: how many at most; ``None``: as many as the model keeps in the mode that it is in.
    """
    rpn: Any = output.model.rpn
    anchors = output.anchors(rpn.anchor_generator)
    offsets = output.by_location(BOXES).detach()
    boxes = rpn.box_coder.decode(offsets.reshape(-1, 4), anchors).view(len(output), -1, 4)
    sizes = [output.size] * len(output)
    found: list[Tensor]
    found, _ = rpn.filter_proposals(boxes, output.by_location(OUTPUT), sizes, places(output, rpn.anchor_generator))
    return found if number is None else [each[:number] for each in found]


def look_at(output: DetectorOutput, regions: list[Tensor]) -> tuple[Tensor, Tensor]:
    """Return what the second stage says of each image's regions ``[region, 4]``, one image after another, as float32.

    Regions are pooled in float32; the layers behind run in the precision in which the model ran.

    Returns:
        Logits ``[region, class]`` and box offsets ``[region, 4 * class]``.
    """
    second: Any = output.model.roi_heads
    pooled = second.box_roi_pool(output.features, regions, [output.size] * len(output))
    with output.as_it_ran():
        logits, offsets = second.box_predictor(second.box_head(pooled))
    return logits.float(), offsets.float()


def _num_classes(model: Any) -> int:
    predictor = model.roi_heads.box_predictor
    layer = getattr(predictor, "cls_score", None)
    if layer is None:
        raise ValueError(
            "roi_heads.box_predictor must have a layer cls_score, as torchvision's FastRCNNPredictor has, found "
            f"{type(predictor).__name__}"
        )
    return int(layer.out_features)
