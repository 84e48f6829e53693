"""The class of every pixel."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from distill.data.annotation.base import Annotation
from distill.late import tv_tensors

IGNORE = 255
"""The value of pixels whose class is not known; torchvision's data sets and references have the same."""


class Mask(Annotation):
    """The class of every pixel of an image.

    Resizing takes the nearest pixel by its centre (``nearest-exact``), which is where bilinear resizing puts the image;
    torchvision's ``nearest`` is off by up to half a pixel.

    Attributes:
        values: ``[height, width]``, uint8; ``IGNORE`` where the class is not known.
    """

    labelled = "pixels"
    plural = "masks"

    def __init__(self, values: Tensor) -> None:
        self.values = values

    def mirrored(self) -> Mask:
        return Mask(self.values.flip(1))

    def window(self, top: int, left: int, height: int, width: int) -> Mask:
        cut = torch.full((height, width), IGNORE, dtype=self.values.dtype)
        rows, columns = self.values.shape
        first_row, first_column = max(top, 0), max(left, 0)
        last_row, last_column = min(top + height, rows), min(left + width, columns)
        if first_row < last_row and first_column < last_column:
            inside = self.values[first_row:last_row, first_column:last_column]
            cut[first_row - top : last_row - top, first_column - left : last_column - left] = inside
        return Mask(cut)

    def resized(self, height: int, width: int) -> Mask:
        if (height, width) == tuple(self.values.shape):
            return self
        return Mask(F.interpolate(self.values[None, None], size=(height, width), mode="nearest-exact")[0, 0])

    def to_tv(self) -> dict[str, Any]:
        # Unknown becomes 0, which is what torchvision's transforms fill empty places with.
        return {"mask": tv_tensors.Mask(self.values + 1)}

    def from_tv(self, values: dict[str, Any], height: int, width: int) -> Mask:
        return Mask(values["mask"].as_subclass(Tensor) - 1)

    def tensors(self) -> tuple[Tensor, ...]:
        return (self.values,)

    @classmethod
    def blank(cls, height: int, width: int) -> Mask:
        return cls(torch.full((height, width), IGNORE, dtype=torch.uint8))

    @classmethod
    def collate(cls, annotations: Sequence[Mask]) -> Tensor:
        """Return ``[batch, height, width]``, int64."""
        return torch.stack([annotation.values for annotation in annotations]).long()
