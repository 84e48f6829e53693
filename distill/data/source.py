"""The contract of a source: all images of a data set, each under one position for good."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt
from torch import Tensor

from distill.data.annotation import Annotation, Sample

Indices = npt.NDArray[np.int64]

View = Callable[[Tensor, int], Tensor]
"""Makes the view of one image ``[channel, height, width]``, given its place in the request."""

SampleView = Callable[[Sample, int], Sample]
"""Makes the view of one annotated image, given its place in the request."""


class Source(ABC):
    """All images of a data set in a fixed order: official training part, then own validation part, then test part.

    Attributes:
        labels: ``[image]``, int64: the class of each image, or where images are annotated the stratum that a split
            draws from, usually the same for all.
        classes: the classes' names, by label.
        num_validation: images of an official validation part; 0 where there is none.
        num_test: images of an official test part; 0 where there is none.
        annotation: what annotates an image, place by place; ``None``: its class is all that is known.
    """

    annotation: type[Annotation] | None = None

    def __init__(self, labels: Indices, classes: Sequence[str], *, num_validation: int = 0, num_test: int = 0) -> None:
        self.labels = labels
        self.classes = tuple(classes)
        self.num_validation = num_validation
        self.num_test = num_test

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def differs_in_size(self) -> bool:
        """Whether images differ in size and cost time to read, so that they are read ahead, image by image."""
        return False

    @abstractmethod
    def fetch(self) -> None:
        """Bring all images to this machine.

        Raises:
            ValueError: they cannot be copied here.
        """

    @abstractmethod
    def read(self, indices: Indices) -> Tensor | list[Tensor]:
        """Return uint8 images: ``[batch, channel, height, width]``, or a list where sizes differ."""

    @abstractmethod
    def read_views(self, indices: Indices, view: View) -> list[Tensor]:
        """Return ``view(image, place)`` of each image, made as soon as the image is read."""

    def read_samples(self, indices: Indices, view: SampleView) -> list[Sample]:
        """Return ``view(sample, place)`` of each image with its annotation, made as soon as the image is read."""
        raise NotImplementedError(f"{type(self).__name__} has no annotations")

    @abstractmethod
    def fit(self, image: Tensor) -> Tensor:
        """Bring one image to the common size, as evaluation sees it."""

    def fit_sample(self, sample: Sample) -> Sample:
        """Bring one annotated image to the common size, as evaluation sees it."""
        raise NotImplementedError(f"{type(self).__name__} has no annotations")

    @abstractmethod
    def digest(self) -> bytes:
        """Return a SHA-256 digest of the images, labels and class names."""
