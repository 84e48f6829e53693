"""The contract of a source: all images of a data set, each under one position for good."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt
from torch import Tensor

Indices = npt.NDArray[np.int64]

View = Callable[[Tensor, int], Tensor]
"""Makes the view of one image ``[channel, height, width]``, given its place in the request."""


class Source(ABC):
    """All images of a data set in a fixed order: official training part, then own validation part, then test part.

    Attributes:
        labels: ``[image]``, int64.
        classes: the classes' names, by label.
        num_validation: images of an official validation part; 0 where there is none.
        num_test: images of an official test part; 0 where there is none.
    """

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

    @abstractmethod
    def fit(self, image: Tensor) -> Tensor:
        """Bring one image to the common size, as evaluation sees it."""

    @abstractmethod
    def digest(self) -> bytes:
        """Return a SHA-256 digest of the images, labels and class names."""
