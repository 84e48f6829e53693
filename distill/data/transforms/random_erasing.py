"""Random erasing: a rectangle of an image is painted over."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from distill.data.transforms.base import Transform, check_range, check_share
from distill.data.transforms.rectangle import NUM_DRAWS, draw_offset, draw_sides, first_attempt


class RandomErasing(Transform):
    """Paint a random rectangle of an image in one colour, with probability ``p`` (Zhong et al. 2017, arXiv:1708.04896).

    The rectangle follows torchvision's law. Departure: torchvision's recipes erase *after* normalisation, where 0
    is the data set's mean colour; this works on pixels, where 0 is black. ``value: MEAN`` of the data set restores it.
    Annotations stay: what is painted over counts as being there.

    Args:
        p: probability.
        scale: bounds of the rectangle's share of the image's area.
        ratio: bounds of its aspect ratio, height over width.
        value: the colour in 0..1, one number for all channels or one for each.
    """

    num_draws = 1 + NUM_DRAWS + 2
    moves = False

    def __init__(
        self,
        p: float = 0.5,
        scale: tuple[float, float] = (0.02, 0.33),
        ratio: tuple[float, float] = (0.3, 3.3),
        value: float | Sequence[float] = 0.0,
    ) -> None:
        check_share("p", p)
        check_range("scale", scale, lowest=0.0, highest=1.0)
        check_range("ratio", ratio, lowest=1e-3, highest=1e3)
        colour = torch.as_tensor(value, dtype=torch.float64).reshape(-1)
        if len(colour) < 1 or bool(((colour < 0) | (colour > 1)).any()):
            raise ValueError(f"value must be a colour in 0..1, found {value!r}")
        self.p = p
        self.scale = scale
        self.ratio = ratio
        self.colour = colour

    def __call__(self, images: Tensor, draws: Tensor) -> Tensor:
        channels, height, width = images.shape[1:]
        if len(self.colour) not in (1, channels):
            raise ValueError(f"value must name 1 or {channels} channels, found {len(self.colour)}")
        top, left, tall, wide = self.boxes(draws, height=height, width=width).to(images.device).unbind(dim=1)
        rows = torch.arange(height, device=images.device)
        columns = torch.arange(width, device=images.device)
        in_rows = (rows >= top[:, None]) & (rows < (top + tall)[:, None])
        in_columns = (columns >= left[:, None]) & (columns < (left + wide)[:, None])
        inside = in_rows[:, None, :, None] & in_columns[:, None, None, :]
        colour = self.colour if images.is_floating_point() else (self.colour * 255).round()
        return torch.where(inside, colour.to(images)[None, :, None, None], images)

    def boxes(self, draws: Tensor, *, height: int, width: int) -> Tensor:
        """Return ``[batch, 4]``, int64: top, left, height and width; an image that stays whole has height 0."""
        sides = draws[:, 1 : 1 + NUM_DRAWS]
        heights, widths = draw_sides(sides, area=height * width, scale=self.scale, ratio=self.ratio)
        attempt, found = first_attempt((heights < height) & (widths < width))
        rows = torch.arange(len(draws))
        tall, wide = heights[rows, attempt], widths[rows, attempt]
        top = draw_offset(draws[:, -2], tall, height)
        left = draw_offset(draws[:, -1], wide, width)
        erased = found & (draws[:, 0] < self.p)
        return torch.stack([top, left, tall.long(), wide.long()], dim=1) * erased[:, None]
