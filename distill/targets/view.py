"""Which images, and how they are shown."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any

from distill.data import Loader
from distill.identity import describe, digest


@dataclass(frozen=True)
class View:
    """The images of a split as one epoch shows them.

    Attributes:
        identity: plain data that tells this view from every other one.
        num_rows: number of images.
    """

    identity: dict[str, Any]
    num_rows: int

    @classmethod
    def of(cls, loader: Loader, epoch: int, data_fingerprint: str) -> View:
        """Return how ``loader`` shows its images in ``epoch``; without augmentation every epoch shows the same.

        Args:
            loader: of the split.
            epoch: counted from 0.
            data_fingerprint: of the data set.
        """
        shown: dict[str, Any] = {}
        if loader.transforms:
            chain = [describe(transform) for transform in loader.transforms]
            shown = {"transforms": chain, "data_seed": loader.data_seed, "view": loader.view(epoch)}
        samples = hashlib.sha256(loader.subset.indices.astype("<i8").tobytes()).hexdigest()
        return cls({"data": data_fingerprint, "samples": samples, **shown}, len(loader.subset))

    @property
    def digest(self) -> str:
        """SHA-256 of the identity."""
        return digest(self.identity)
