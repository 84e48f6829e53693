"""The objects of an image."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from distill.data.annotation.base import Annotation
from distill.late import tv_tensors
from distill.objects import Objects

MIN_SIDE = 1.0
"""Pixels that both sides of a box need after cutting; what is left of the others cannot be recognised."""


class Boxes(Annotation):
    """The objects of an image.

    After cutting and resizing, boxes are cut off at the border; those with a side below ``MIN_SIDE`` are left out.

    Attributes:
        boxes: ``[object, 4]``, float32: left, top, right, bottom in pixels.
        labels: ``[object]``, int64, from 1.
        ignored: ``[object]``, bool: not trained on, and neither right nor wrong to find.
        height: of the image.
        width: of the image.
    """

    labelled = "objects"
    plural = "boxes"

    def __init__(self, boxes: Tensor, labels: Tensor, ignored: Tensor, height: int, width: int) -> None:
        self.boxes = boxes
        self.labels = labels
        self.ignored = ignored
        self.height = height
        self.width = width

    def mirrored(self) -> Boxes:
        left, top, right, bottom = self.boxes.unbind(dim=1)
        mirrored = torch.stack([self.width - right, top, self.width - left, bottom], dim=1)
        return Boxes(mirrored, self.labels, self.ignored, self.height, self.width)

    def window(self, top: int, left: int, height: int, width: int) -> Boxes:
        shift = torch.tensor([left, top, left, top], dtype=torch.float32)
        return self._inside(self.boxes - shift, self.labels, self.ignored, height, width)

    def resized(self, height: int, width: int) -> Boxes:
        across, down = width / self.width, height / self.height
        scaled = self.boxes * torch.tensor([across, down, across, down], dtype=torch.float32)
        return self._inside(scaled, self.labels, self.ignored, height, width)

    def to_tv(self) -> dict[str, Any]:
        boxes = tv_tensors.BoundingBoxes(
            self.boxes, format=tv_tensors.BoundingBoxFormat.XYXY, canvas_size=(self.height, self.width)
        )
        # One tensor, so that what torchvision leaves out (SanitizeBoundingBoxes) it leaves out of both.
        return {"boxes": boxes, "labels": torch.stack([self.labels, self.ignored.long()], dim=1)}

    def from_tv(self, values: dict[str, Any], height: int, width: int) -> Boxes:
        labels, ignored = values["labels"].unbind(dim=1)
        return self._inside(values["boxes"].as_subclass(Tensor), labels, ignored.bool(), height, width)

    def tensors(self) -> tuple[Tensor, ...]:
        return self.boxes, self.labels, self.ignored

    @classmethod
    def blank(cls, height: int, width: int) -> Boxes:
        nothing = torch.zeros(0)
        return cls(nothing.reshape(0, 4), nothing.long(), nothing.bool(), height, width)

    @classmethod
    def collate(cls, annotations: Sequence[Boxes]) -> Objects:
        """Return the objects image by image."""
        return Objects.of([(each.boxes, each.labels, each.ignored) for each in annotations])

    @staticmethod
    def _inside(boxes: Tensor, labels: Tensor, ignored: Tensor, height: int, width: int) -> Boxes:
        """Cut boxes off at the border and leave out what is too small."""
        bounds = torch.tensor([width, height, width, height], dtype=torch.float32)
        cut = torch.minimum(boxes.clamp_min(0), bounds)
        kept = ((cut[:, 2:] - cut[:, :2]) >= MIN_SIDE).all(dim=1)
        return Boxes(cut[kept], labels[kept], ignored[kept], height, width)
