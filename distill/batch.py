"""What one training step sees: images, what is known of them, and the samples' indices."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from torch import Tensor

from distill.objects import Labels, Objects


class Samples(NamedTuple):
    """All samples that a training sees.

    Attributes:
        indices: ``[sample]``, int64 positions in the data set's own order, ascending.
        labels: ``[sample]``, int64; all alike where samples have no single class.
    """

    indices: Tensor
    labels: Tensor


@dataclass(frozen=True)
class Batch:
    """A batch of samples, already augmented and normalised.

    Attributes:
        images: ``[batch, channel, height, width]``, float.
        labels: what is known of the images: ``[batch]``, int64 classes; ``[batch, height, width]``, int64 classes of
            pixels, 255 where not known; or :class:`~distill.objects.Objects`.
        indices: ``[batch]``, int64 positions in the data set's own order; they name a sample for good.
        targets: what the teacher said of these images, by path and layer, as far as it was stored.
        progress: share of the training that is done, from 0 to 1, for what follows a schedule; the Distiller fills it
            in, see ``Distiller.advance``.
    """

    images: Tensor
    labels: Labels
    indices: Tensor
    targets: Mapping[str, dict[str, Tensor]] = field(default_factory=dict)
    progress: Tensor | float = 0.0

    @property
    def classes(self) -> Tensor:
        """The labels where they are classes, of images or of pixels.

        Raises:
            ValueError: the labels are objects.
        """
        if not isinstance(self.labels, Tensor):
            raise ValueError("images are labelled with objects here, where classes of images or pixels are needed")
        return self.labels

    @property
    def objects(self) -> Objects:
        """The labels where they are objects.

        Raises:
            ValueError: the labels are classes.
        """
        if not isinstance(self.labels, Objects):
            raise ValueError("images are labelled with classes here, where objects are needed")
        return self.labels

    def __len__(self) -> int:
        return len(self.images)

    def to(self, device: torch.device, *, channels_last: bool = False) -> Batch:
        """Move to ``device`` without waiting; optionally lay the images out channels-last."""
        layout = torch.channels_last if channels_last else torch.contiguous_format
        return Batch(
            self.images.to(device, non_blocking=True, memory_format=layout),
            self.labels.to(device, non_blocking=True),
            self.indices.to(device, non_blocking=True),
            {
                path: {layer: value.to(device, non_blocking=True) for layer, value in target.items()}
                for path, target in self.targets.items()
            },
            self.progress,
        )
