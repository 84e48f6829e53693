"""The objects of a batch of images: boxes, their classes, and which of them do not count."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor


@dataclass(frozen=True)
class Objects:
    """The objects of each image of a batch, image by image, since their number differs.

    Attributes:
        boxes: for each image ``[object, 4]``, float32: left, top, right, bottom in pixels, as the models see the image.
        labels: for each image ``[object]``, int64 classes; 0 is the background, so that objects start at 1.
        ignored: for each image ``[object]``, bool: crowds and objects marked as difficult. Nothing is trained on them,
            and finding them is neither right nor wrong.
    """

    boxes: tuple[Tensor, ...]
    labels: tuple[Tensor, ...]
    ignored: tuple[Tensor, ...]

    def __len__(self) -> int:
        return len(self.boxes)

    def to(self, device: torch.device, *, non_blocking: bool = False) -> Objects:
        """Move to ``device``."""
        return Objects(
            *(
                tuple(value.to(device, non_blocking=non_blocking) for value in values)
                for values in (self.boxes, self.labels, self.ignored)
            )
        )

    def pin_memory(self) -> Objects:
        """Return a copy in pinned memory."""
        return Objects(
            *(tuple(value.pin_memory() for value in values) for values in (self.boxes, self.labels, self.ignored))
        )

    def trained(self) -> list[dict[str, Tensor]]:
        """Return what is trained on, in torchvision's form: a mapping an image, without what is ignored."""
        return [
            {"boxes": boxes[~ignored], "labels": labels[~ignored]}
            for boxes, labels, ignored in zip(self.boxes, self.labels, self.ignored, strict=True)
        ]

    @classmethod
    def of(cls, images: Sequence[tuple[Tensor, Tensor, Tensor]]) -> Objects:
        """Gather boxes, labels and ignored of several images."""
        boxes, labels, ignored = zip(*images, strict=True) if images else ((), (), ())
        return cls(tuple(boxes), tuple(labels), tuple(ignored))


Labelled = Literal["images", "pixels", "objects"]
"""What has a class of its own."""

Labels = Tensor | Objects
"""What is known of a batch: int64 classes ``[batch]``, int64 classes of pixels ``[batch, height, width]``, objects."""
