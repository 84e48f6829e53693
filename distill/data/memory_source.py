"""A source that holds all its images in memory."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import torch
from torch import Tensor

from distill.data.source import Indices, Source, View


class MemorySource(Source):
    """Images of one size, in memory.

    Args:
        images: ``[image, channel, height, width]``, uint8.
        labels: ``[image]``, int64.
        classes: the classes' names, by label.
        num_test: how many images at the end are the official test part.

    Raises:
        ValueError: images and labels differ in number, or a label has no class.
    """

    def __init__(self, images: Tensor, labels: Indices, classes: Sequence[str], *, num_test: int = 0) -> None:
        super().__init__(labels, classes, num_test=num_test)
        if len(images) != len(labels):
            raise ValueError(f"a data set needs one label an image, found {len(images)} images, {len(labels)} labels")
        if len(labels) and not 0 <= labels.min() <= labels.max() < len(classes):
            raise ValueError(f"labels must be in 0..{len(classes) - 1}, found {labels.min()}..{labels.max()}")
        self.images = images.contiguous()

    def fetch(self) -> None:
        """All images are here."""

    def read(self, indices: Indices) -> Tensor:
        return self.images.index_select(0, torch.from_numpy(indices))

    def read_views(self, indices: Indices, view: View) -> list[Tensor]:
        return [view(image, place) for place, image in enumerate(self.read(indices))]

    def fit(self, image: Tensor) -> Tensor:
        return image

    def digest(self) -> bytes:
        content = hashlib.sha256(repr((self.classes, tuple(self.images.shape))).encode())
        content.update(self.images.numpy().data)
        content.update(self.labels.astype("<i8").data)
        return content.digest()
