"""Some of a source's images: what one part of a split holds."""

from __future__ import annotations

from torch import Tensor

from distill.data.source import Indices, Source


class Subset:
    """Some of a source's images, in ascending order of their positions there.

    Attributes:
        source: where the images come from.
        indices: ``[sample]``, int64 positions in the source; they name a sample for good.
        labels: ``[sample]``, int64.
    """

    def __init__(self, source: Source, indices: Indices) -> None:
        self.source = source
        self.indices = indices
        self.labels = source.labels[indices]

    def __len__(self) -> int:
        return len(self.indices)

    def read(self, positions: Indices) -> Tensor | list[Tensor]:
        """Return uint8 images by their positions in this subset: one tensor, or a list where sizes differ."""
        return self.source.read(self.indices[positions])
