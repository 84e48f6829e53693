"""The contract of an annotation: what belongs to an image, and moves with it when it is mirrored, cut or resized."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, ClassVar, NamedTuple, Self

from torch import Tensor

from distill.late import v2
from distill.objects import Labelled, Labels


class Annotation(ABC):
    """What is known of one image, place by place. Geometric transforms know these operations and nothing else."""

    labelled: ClassVar[Labelled]
    """What has a class of its own."""
    plural: ClassVar[str]
    """What messages call such annotations."""

    @abstractmethod
    def mirrored(self) -> Self:
        """Return the annotation of the image mirrored left to right."""

    @abstractmethod
    def window(self, top: int, left: int, height: int, width: int) -> Self:
        """Return the annotation of a window; where it reaches beyond the image nothing is known."""

    @abstractmethod
    def resized(self, height: int, width: int) -> Self:
        """Return the annotation of the image resized to ``height`` and ``width``."""

    @abstractmethod
    def to_tv(self) -> dict[str, Any]:
        """Return it as torchvision's transforms take it: by name, ``tv_tensors`` where there is such a class."""

    @abstractmethod
    def from_tv(self, values: dict[str, Any], height: int, width: int) -> Self:
        """Return what torchvision's transforms made of :meth:`to_tv`, for an image that now has this size."""

    @abstractmethod
    def tensors(self) -> tuple[Tensor, ...]:
        """Return all that is known, in a fixed order, such as a digest takes it."""

    @classmethod
    @abstractmethod
    def blank(cls, height: int, width: int) -> Self:
        """Return the annotation of an image of which nothing is known."""

    @classmethod
    @abstractmethod
    def collate(cls, annotations: Sequence[Self]) -> Labels:
        """Return the annotations of the images of a batch, all of one size, as ``Batch.labels`` has them."""


class Sample(NamedTuple):
    """An image and what belongs to it.

    Attributes:
        image: ``[channel, height, width]``, uint8 in 0..255 or float in 0..1.
        annotation: of an image of this size.
    """

    image: Tensor
    annotation: Annotation

    def resized(self, height: int, width: int) -> Sample:
        """Return image (bilinear, antialiased) and annotation resized to ``height`` and ``width``."""
        if (height, width) == tuple(self.image.shape[1:]):
            return self
        image = v2.functional.resize(self.image, [height, width], antialias=True)
        return Sample(image, self.annotation.resized(height, width))

    def window(self, top: int, left: int, height: int, width: int) -> Sample:
        """Return what a window shows; where it reaches beyond the image it is black, and nothing is known there."""
        if (top, left, height, width) == (0, 0, *self.image.shape[1:]):
            return self
        image = v2.functional.crop(self.image, top, left, height, width)
        return Sample(image, self.annotation.window(top, left, height, width))
