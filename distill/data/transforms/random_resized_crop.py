"""Random crop of random area and aspect ratio, resized: the usual ImageNet augmentation."""

from __future__ import annotations

import torch
from torch import Tensor

from distill.data.annotation import Sample
from distill.data.transforms.base import Transform, check_range
from distill.data.transforms.rectangle import NUM_DRAWS, draw_offset, draw_sides, first_attempt
from distill.late import v2


class RandomResizedCrop(Transform):
    """Cut out a random rectangle and resize it to a square (bilinear, antialiased).

    The law of the rectangle is torchvision's (ten attempts, then a central crop within the bounds of the ratio), and
    so is the resizing; only the source of the random numbers differs.

    Args:
        size: side of the result in pixels.
        scale: bounds of the rectangle's share of the image's area.
        ratio: bounds of its aspect ratio, width over height.
    """

    num_draws = NUM_DRAWS + 2
    fixes_size = True

    def __init__(
        self, size: int, scale: tuple[float, float] = (0.08, 1.0), ratio: tuple[float, float] = (3 / 4, 4 / 3)
    ) -> None:
        if size < 1:
            raise ValueError(f"size must be at least 1 pixel, found {size}")
        check_range("scale", scale, lowest=1e-6, highest=1.0)
        check_range("ratio", ratio, lowest=1e-3, highest=1e3)
        self.size = size
        self.scale = scale
        self.ratio = ratio

    def __call__(self, images: Tensor, draws: Tensor) -> Tensor:
        boxes = self.boxes(draws, height=images.shape[-2], width=images.shape[-1]).tolist()
        return torch.stack(
            [
                v2.functional.resized_crop(image, *box, size=[self.size, self.size], antialias=True)
                for image, box in zip(images, boxes, strict=True)
            ]
        )

    def together(self, sample: Sample, draws: Tensor) -> Sample:
        height, width = sample.image.shape[1:]
        (box,) = self.boxes(draws[None], height=height, width=width).tolist()
        image = v2.functional.resized_crop(sample.image, *box, size=[self.size, self.size], antialias=True)
        return Sample(image, sample.annotation.window(*box).resized(self.size, self.size))

    def boxes(self, draws: Tensor, *, height: int, width: int) -> Tensor:
        """Return ``[batch, 4]``, int64: top, left, height and width of each image's rectangle."""
        widths, heights = draw_sides(draws[:, :NUM_DRAWS], area=height * width, scale=self.scale, ratio=self.ratio)
        fits = (widths > 0) & (widths <= width) & (heights > 0) & (heights <= height)
        attempt, found = first_attempt(fits)
        rows = torch.arange(len(draws))
        tall, wide = heights[rows, attempt], widths[rows, attempt]
        top = draw_offset(draws[:, NUM_DRAWS], tall, height)
        left = draw_offset(draws[:, NUM_DRAWS + 1], wide, width)
        drawn = torch.stack([top, left, tall.long(), wide.long()], dim=1)
        return torch.where(found[:, None], drawn, torch.tensor(self._central_box(height, width)))

    def _central_box(self, height: int, width: int) -> tuple[int, int, int, int]:
        """Return the fallback: the largest central rectangle whose ratio is allowed."""
        low, high = self.ratio
        wide = min(width, round(height * high)) if width > height * high else width
        tall = min(height, round(width / low)) if width < height * low else height
        return (height - tall) // 2, (width - wide) // 2, tall, wide
