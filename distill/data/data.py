"""A loaded data set: who sees which images, and how they are shown."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

from distill.data.source import Source
from distill.data.subset import Subset
from distill.data.transforms.base import Transform


@dataclass(frozen=True, eq=False)
class Data:
    """A loaded data set.

    Attributes:
        source: all images.
        train: what the student trains on.
        teacher_train: what the teacher trains on.
        validation: what ranks, stops and attributes; ``None`` under protocol ``paper``.
        test: evaluated once a finished run, and only reported.
        image_shape: (channels, height, width) as the models see it.
        mean: of each channel, in 0..1.
        std: of each channel, in 0..1.
        transforms: the augmentation of training images.
        protocol: ``holdout``, or ``paper`` (trained on all, no validation).
    """

    source: Source
    train: Subset
    teacher_train: Subset
    validation: Subset | None
    test: Subset
    image_shape: tuple[int, int, int]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    transforms: tuple[Transform, ...]
    protocol: Literal["holdout", "paper"]

    @property
    def num_classes(self) -> int:
        """Number of classes."""
        return len(self.source.classes)

    @property
    def classes(self) -> tuple[str, ...]:
        """The classes' names, by label."""
        return self.source.classes

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 of images, labels, class names, normalisation and split; not of the augmentation.

        Of image files it digests names and sizes, not content. Computed when first asked for.
        """
        content = hashlib.sha256(self.source.digest())
        content.update(repr((self.image_shape, self.mean, self.std, self.protocol)).encode())
        for part in (self.train, self.teacher_train, self.validation, self.test):
            content.update(b"part" if part is None else b"part" + part.indices.astype("<i8").tobytes())
        return content.hexdigest()
