"""The law by which torchvision draws a random rectangle: up to ten attempts at an area and an aspect ratio."""

from __future__ import annotations

import math

import torch
from torch import Tensor

NUM_ATTEMPTS = 10
NUM_DRAWS = 2 * NUM_ATTEMPTS


def draw_sides(
    draws: Tensor, *, area: int, scale: tuple[float, float], ratio: tuple[float, float]
) -> tuple[Tensor, Tensor]:
    """Return the sides of every attempt; the caller takes the first attempt that fits.

    Args:
        draws: ``[batch, NUM_DRAWS]``, in [0, 1): area and ratio of the first attempt, then of the second, ...
        area: of the image, in pixels.
        scale: bounds of the rectangle's share of the area.
        ratio: bounds of the aspect ratio, drawn uniformly in its logarithm.

    Returns:
        Two of ``[batch, attempt]``, float64 whole numbers: ``sqrt(area * ratio)`` and ``sqrt(area / ratio)``.
    """
    pairs = draws.reshape(len(draws), NUM_ATTEMPTS, 2)
    areas = area * (scale[0] + (scale[1] - scale[0]) * pairs[..., 0])
    low, high = math.log(ratio[0]), math.log(ratio[1])
    ratios = torch.exp(low + (high - low) * pairs[..., 1])
    return torch.sqrt(areas * ratios).round(), torch.sqrt(areas / ratios).round()


def first_attempt(fits: Tensor) -> tuple[Tensor, Tensor]:
    """Return ``([batch], [batch])``: the first attempt of each row that fits, and whether any did."""
    return fits.to(torch.uint8).argmax(dim=1), fits.any(dim=1)


def draw_offset(draws: Tensor, side: Tensor, length: int) -> Tensor:
    """Return where a stretch of ``side`` pixels starts within ``length``, uniform over all places, int64."""
    return torch.floor(draws * (length - side + 1)).long()
