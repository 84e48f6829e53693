"""Which places of a map are alike: cosines between all pairs of positions, and distances between them."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from distill.paths.gram import columns_are_few, gram_distance

EPSILON = 1e-6
"""The values of a position that are shorter than this, over the channels, are divided by it."""


def unit_positions(maps: Tensor) -> Tensor:
    """Return ``[batch, channel, height, width]`` as ``[batch, channel, position]``, each position of unit length."""
    return F.normalize(maps.flatten(2), dim=1, eps=EPSILON)


def cosines(units: Tensor) -> Tensor:
    """Return the cosines of all pairs of positions of unit length, ``[batch, position, position]``."""
    return units.mT @ units


def affinity_distance(student: Tensor, teacher: Tensor) -> Tensor:
    """Return the mean over batch and all pairs of positions of the squared difference of their cosines; scalar.

    Where channels are few ``[position, position]`` matrices are never formed. What their terms leave over near zero is
    rounding (about 1e-7 in float32); it is cut off at zero.

    Args:
        student: positions of unit length, ``[batch, channel, position]``.
        teacher: likewise; the number of channels may differ. It gets no gradient.
    """
    positions = student.shape[2]
    if columns_are_few(student.shape[1], teacher.shape[1], positions):
        return (gram_distance(student.mT, teacher.mT) / positions**2).clamp_min(0).mean()
    return F.mse_loss(cosines(student), cosines(teacher))
