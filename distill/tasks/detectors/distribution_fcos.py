"""FCOS with distributions of the sides of boxes."""

from __future__ import annotations

from torch import nn

from distill.models.distribution_head import DistributionHead
from distill.taps import BOX_DISTRIBUTION, Head
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

    def head(self, output: DetectorOutput) -> Head:
        return Head(independent=self.independent, locations=FCOSLocations(output))
