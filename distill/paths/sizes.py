"""Maps of two sizes, brought to one."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor


def pooled_alike(one: Tensor, other: Tensor) -> tuple[Tensor, Tensor]:
    """Bring both maps ``[..., height, width]`` to the smaller height and the smaller width, by average pooling."""
    size = (min(one.shape[-2], other.shape[-2]), min(one.shape[-1], other.shape[-1]))
    return pool(one, size), pool(other, size)


def pool(maps: Tensor, size: tuple[int, int]) -> Tensor:
    """Return ``[..., height, width]`` at another height and width, by adaptive average pooling.

    Where ``size`` is the larger one, positions repeat.
    """
    if maps.shape[-2:] == size:  # pooling to the same size would be the identity, but not deterministic on CUDA
        return maps
    pooled: Tensor = F.adaptive_avg_pool2d(maps, size)
    return pooled
