"""Maps of different height and width, brought together."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor


def pool(maps: Tensor, size: tuple[int, int]) -> Tensor:
    """Return ``[batch, channel, height, width]`` at another height and width, by adaptive average pooling.

    Where ``size`` is the larger one, positions repeat.
    """
    if maps.shape[2:] == size:  # pooling to the same size would be the identity, but not deterministic on CUDA
        return maps
    pooled: Tensor = F.adaptive_avg_pool2d(maps, size)
    return pooled


def pool_larger(one: Tensor, other: Tensor) -> tuple[Tensor, Tensor]:
    """Return both maps at the smaller height and the smaller width of the two."""
    size = (min(one.shape[2], other.shape[2]), min(one.shape[3], other.shape[3]))
    return pool(one, size), pool(other, size)
