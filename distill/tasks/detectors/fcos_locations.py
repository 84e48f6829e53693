"""The locations of FCOS."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor

from distill.late import models
from distill.objects import Objects
from distill.taps import LEVEL, LocationHead
from distill.tasks.detectors.one_stage import places
from distill.tasks.detectors.output import DetectorOutput


class FCOSLocations(LocationHead):
    """Where the locations of an FCOS of torchvision's lie, and which of them it trains on objects.

    Args:
        output: of the model for images of the size that it will see; only what does not depend on the images is kept.
    """

    def __init__(self, output: DetectorOutput) -> None:
        self._output = replace(output, parts={})
        self._sizes = [tuple(level.shape[2:]) for level in output.levels]

    def anchors(self, device: torch.device) -> Tensor:
        output = self._blank(1, device)
        generator: Any = output.model.anchor_generator
        return output.anchors(generator)[0]

    def positive(self, objects: Objects) -> Tensor:
        model: Any = self._output.model
        output = self._blank(len(objects), objects.boxes[0].device)
        anchors, numbers = output.anchors(model.anchor_generator), places(output, model.anchor_generator)
        # torchvision matches locations and objects on the way to the head's loss: what it hands over there is returned.
        matcher = SimpleNamespace(
            center_sampling_radius=model.center_sampling_radius,
            head=SimpleNamespace(compute_loss=lambda targets, said, anchors, matched: matched),
        )
        matched = models.detection.FCOS.compute_loss(matcher, objects.trained(), {}, anchors, numbers)
        return torch.stack(matched) >= 0

    def _blank(self, number: int, device: torch.device) -> DetectorOutput:
        """Return the output for so many images, of which only the sizes of the levels count."""
        nothing = torch.zeros((), device=device)
        levels = {f"{LEVEL}{index}": nothing.expand(number, 1, *size) for index, size in enumerate(self._sizes)}
        return replace(self._output, parts=levels)
