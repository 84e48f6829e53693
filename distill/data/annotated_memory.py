"""A source that holds all its annotated images in memory."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from distill.data.annotation import Annotation, Sample
from distill.data.source import Indices, SampleView, Source, View
from distill.late import v2


class AnnotatedMemory(Source):
    """Annotated images of one size, in memory.

    Args:
        images: ``[image, channel, height, width]``, uint8.
        annotations: one an image, all of one kind, each of an image of this size.
        classes: the classes' names, by label.
        num_validation: how many images before the test part are the own validation part.
        num_test: how many images at the end are the official test part.

    Raises:
        ValueError: images and annotations differ in number, or there are none.
    """

    def __init__(
        self,
        images: Tensor,
        annotations: Sequence[Annotation],
        classes: Sequence[str],
        *,
        num_validation: int = 0,
        num_test: int = 0,
    ) -> None:
        if len(images) != len(annotations) or not annotations:
            raise ValueError(
                f"a data set needs images, each with its annotation, found {len(images)} images, "
                f"{len(annotations)} annotations"
            )
        super().__init__(
            np.zeros(len(images), dtype=np.int64), classes, num_validation=num_validation, num_test=num_test
        )
        self.annotation = type(annotations[0])
        self.images = images.contiguous()
        self.annotations = tuple(annotations)

    def fetch(self) -> None:
        """All images are here."""

    def read(self, indices: Indices) -> Tensor:
        return self.images.index_select(0, torch.from_numpy(indices))

    def read_views(self, indices: Indices, view: View) -> list[Tensor]:
        return [view(image, place) for place, image in enumerate(self.read(indices))]

    def read_samples(self, indices: Indices, view: SampleView) -> list[Sample]:
        images = self.read(indices)
        annotations = [self.annotations[index] for index in indices.tolist()]
        return [view(Sample(*pair), place) for place, pair in enumerate(zip(images, annotations, strict=True))]

    def fit(self, image: Tensor) -> Tensor:
        size = self.images.shape[2:]
        return image if image.shape[1:] == size else v2.functional.resize(image, list(size), antialias=True)

    def fit_sample(self, sample: Sample) -> Sample:
        if sample.image.shape[1:] == self.images.shape[2:]:
            return sample
        height, width = self.images.shape[2:]
        return Sample(self.fit(sample.image), sample.annotation.resized(height, width))

    def digest(self) -> bytes:
        content = hashlib.sha256(repr((self.classes, tuple(self.images.shape))).encode())
        content.update(self.images.numpy().data)
        for annotation in self.annotations:
            for values in annotation.tensors():
                content.update(repr(tuple(values.shape)).encode())
                content.update(values.numpy().tobytes())
        return content.digest()
