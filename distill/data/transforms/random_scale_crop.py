"""Random scale, then a random window of one size: how segmentation trains, and detection with large-scale jitter."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

from distill.data.annotation import Sample
from distill.data.canvas import sides_of
from distill.data.transforms.base import Transform, check_range
from distill.data.transforms.rectangle import draw_offset
from distill.late import v2


class RandomScaleCrop(Transform):
    """Resize an image by a random factor, its aspect kept, and cut out a window at a random place.

    The factor is uniform in ``scale``. Where the resized image is smaller than the window it stays at the left and at
    the top, and the rest is black and unknown: masks have 255 there, and no box. Relative to the image with
    ``(0.5, 2.0)`` this is what most segmentation models are trained with (Chen et al. 2017, arXiv:1706.05587);
    relative to the size with ``(0.1, 2.0)`` it is large-scale jitter (Ghiasi et al. 2021, arXiv:2012.07177), as
    torchvision's ScaleJitter and FixedSizeCrop. torchvision rounds resized sides down, here they are rounded.
    Images are resized bilinearly and antialiased.

    Args:
        size: height and width of the window in pixels, or one number for both.
        scale: bounds of the factor.
        relative_to: what a factor of 1 means: the ``image`` in its own size, or in the largest one that fits into
            ``size``.
    """

    num_draws = 3
    fixes_size = True

    def __init__(
        self,
        size: int | Sequence[int],
        scale: tuple[float, float] = (0.5, 2.0),
        relative_to: Literal["image", "size"] = "image",
    ) -> None:
        check_range("scale", scale, lowest=1e-3, highest=1e3)
        if relative_to not in ("image", "size"):
            raise ValueError(f"relative_to must be 'image' or 'size', found {relative_to!r}")
        self.height, self.width = sides_of(size)
        self.scale = scale
        self.relative_to = relative_to

    def __call__(self, images: Tensor, draws: Tensor) -> Tensor:
        views = []
        for image, row in zip(images, draws, strict=True):
            height, width, top, left = self.place(row, *image.shape[1:])
            resized = v2.functional.resize(image, [height, width], antialias=True)
            views.append(v2.functional.crop(resized, top, left, self.height, self.width))
        return torch.stack(views)

    def together(self, sample: Sample, draws: Tensor) -> Sample:
        height, width, top, left = self.place(draws, *sample.image.shape[1:])
        return sample.resized(height, width).window(top, left, self.height, self.width)

    def place(self, draws: Tensor, height: int, width: int) -> tuple[int, int, int, int]:
        """Return height and width of the resized image, and top and left of the window in it, in pixels.

        Args:
            draws: ``[num_draws]``.
            height: of the image.
            width: of the image.
        """
        scale = self.scale[0] + (self.scale[1] - self.scale[0]) * float(draws[0])
        if self.relative_to == "size":
            scale *= min(self.height / height, self.width / width)
        new_height, new_width = max(1, round(scale * height)), max(1, round(scale * width))
        top = int(draw_offset(draws[1], torch.tensor(min(self.height, new_height)), new_height))
        left = int(draw_offset(draws[2], torch.tensor(min(self.width, new_width)), new_width))
        return new_height, new_width, top, left
