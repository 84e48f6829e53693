"""Detectors of one stage: heads on all levels say of each location what is there."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from distill.taps import OUTPUT, Head
from distill.tasks.detectors.base import DetectorFamily
from distill.tasks.detectors.output import BOXES, DetectorOutput


class OneStage(DetectorFamily):
    """torchvision's detectors of one stage: a backbone, a head, an anchor generator."""

    named: ClassVar[Mapping[str, str]] = {OUTPUT: "cls_logits", BOXES: "bbox_regression"}
    """By tap name, what the model's head calls the part."""

    def run(self, model: Any, images: Tensor) -> DetectorOutput:
        maps = maps_of(model, images)
        said = model.head(list(maps.values()))  # by name [batch, location, channel]
        parts = {tap: said[name].transpose(1, 2) for tap, name in self.named.items()}
        return DetectorOutput.of(model, images, parts, maps)

    def head(self, output: DetectorOutput) -> Head:
        model: Any = output.model
        return Head(independent=self.independent, boxes=boxes_of(model.box_coder, model.anchor_generator))

    def said(self, output: DetectorOutput) -> dict[str, Tensor]:
        """Return what the head said, ``[batch, location, channel]`` by its own names, as float32."""
        return {name: output.by_location(tap) for tap, name in self.named.items()}


def boxes_of(coder: Any, generator: Any) -> str:
    """Say how torchvision's coder makes boxes of offsets and of the anchors of a generator, for messages too."""
    names = ("weights", "normalize_by_size", "sizes", "aspect_ratios", "scales", "steps", "clip")
    told = [f"{name} {getattr(part, name)}" for part in (coder, generator) for name in names if hasattr(part, name)]
    return f"{type(coder).__name__} and {type(generator).__name__} with {', '.join(told) or 'no options'}"


def maps_of(model: Any, images: Tensor) -> Mapping[str, Tensor]:
    """Return the maps of a model's backbone, the finest first, by its own names; torchvision calls a single one 0."""
    maps: Tensor | Mapping[str, Tensor] = model.backbone(images)
    return {"0": maps} if isinstance(maps, Tensor) else maps


def places(output: DetectorOutput, generator: Any) -> list[int]:
    """Return the number of locations of each level."""
    per_place = generator.num_anchors_per_location()
    return [level.shape[2] * level.shape[3] * anchors for level, anchors in zip(output.levels, per_place, strict=True)]


def nowhere(anchors: Tensor) -> Tensor:
    """Return, as the matched object of each anchor ``[location]``, that none matches: torchvision's -1."""
    return torch.full((len(anchors),), -1, dtype=torch.int64, device=anchors.device)


def level_by_level(
    output: DetectorOutput, said: Mapping[str, Tensor], generator: nn.Module
) -> tuple[dict[str, list[Tensor]], list[list[Tensor]]]:
    """Return what the head said and the anchors of each image, each split into the levels."""
    numbers = places(output, generator)
    anchors = [list(torch.split(each, numbers)) for each in output.anchors(generator)]
    return {name: list(torch.split(values, numbers, dim=1)) for name, values in said.items()}, anchors
