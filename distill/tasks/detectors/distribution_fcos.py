"""FCOS with distributions of the sides of boxes."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from torch import Tensor, nn

from distill.models.distribution_head import DistributionHead
from distill.taps import BOX_DISTRIBUTION, BOXES, Head
from distill.tasks.detectors.fcos import FCOSFamily
from distill.tasks.detectors.fcos_locations import FCOSLocations
from distill.tasks.detectors.output import DetectorOutput


class DistributionFCOSFamily(FCOSFamily):
    """Models of :func:`distill.models.DistributionFCOS`: the losses of FCOS and the distribution focal loss.

    The box offsets are the means of the distributions, ``:box_distribution`` ``[batch, 4 * bins, location]``.
    """

    named = {**FCOSFamily.named, BOX_DISTRIBUTION: "box_distribution"}  # noqa: RUF012

    def fits(self, model: nn.Module) -> bool:
        return super().fits(model) and isinstance(model.head, DistributionHead)

    def run(self, model: Any, images: Tensor) -> DetectorOutput:
        output = super().run(model, images)
        # Of the very tensor that is shown, so that all of the loss has its gradient there.
        boxes = model.head.distances(output.parts[BOX_DISTRIBUTION])
        return replace(output, parts={**output.parts, BOXES: boxes})

    def head(self, output: DetectorOutput) -> Head:
        return replace(super().head(output), locations=FCOSLocations(output))
