"""Means and scatter matrices of feature maps: all that an affine map after them needs to know."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


def sample_moments(features: Tensor) -> tuple[Tensor, Tensor]:
    """Return each sample's mean and scatter over its positions.

    With the channels' values at the positions of a sample as the columns of ``X``, ``m`` their mean and ``Z = X - m``:
    the mean is ``m`` and the scatter ``Z Z'``. Centring comes first, so that a large mean costs no digits.

    Args:
        features: ``[batch, channel, height, width]``, in any memory layout.

    Returns:
        Means ``[batch, channel]`` and scatter matrices ``[batch, channel, channel]``.
    """
    means, scatter = _SampleMoments.apply(features)
    return means, scatter


def pooled_moments(features: Tensor) -> tuple[Tensor, Tensor]:
    """Return each sample's mean over its positions, and the sum of all samples' scatter matrices.

    The same as :func:`sample_moments` with its scatter summed over the batch, but no sample's matrix is formed.

    Args:
        features: ``[batch, channel, height, width]``, in any memory layout.

    Returns:
        Means ``[batch, channel]`` and one scatter matrix ``[channel, channel]``.
    """
    means, scatter = _PooledMoments.apply(features)
    return means, scatter


class _SampleMoments(torch.autograd.Function):
    """Autograd would form two products in backward and give them back transposed; one in the map's layout is enough."""

    @staticmethod
    def forward(ctx: Any, features: Tensor) -> tuple[Tensor, Tensor]:
        means, centred = _centre(features)
        ctx.save_for_backward(features, means)
        return means, centred.mT @ centred

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        features, means = ctx.saved_tensors
        by_means, by_scatter = gradients
        slope = by_scatter + by_scatter.mT  # [batch, channel, channel]
        return _affine(features, slope, _shift(features, by_means, (means[:, None] @ slope)[:, 0]))


class _PooledMoments(torch.autograd.Function):
    """As :class:`_SampleMoments`, with one matrix for all samples."""

    @staticmethod
    def forward(ctx: Any, features: Tensor) -> tuple[Tensor, Tensor]:
        means, centred = _centre(features)
        ctx.save_for_backward(features, means)
        flat = centred.flatten(0, 1)  # [batch * position, channel]
        return means, flat.mT @ flat

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        features, means = ctx.saved_tensors
        by_means, by_scatter = gradients
        slope = by_scatter + by_scatter.mT  # [channel, channel]
        return _affine(features, slope.expand(len(features), -1, -1), _shift(features, by_means, means @ slope))


def _centre(features: Tensor) -> tuple[Tensor, Tensor]:
    """Return means ``[batch, channel]`` and what is left without them, ``[batch, position, channel]``."""
    means = features.mean(dim=(2, 3))
    return means, features.flatten(2).mT - means[:, None]


def _shift(features: Tensor, by_means: Tensor, slope_at_means: Tensor) -> Tensor:
    """Return what every position of a sample adds to its gradient beside ``slope @ x``, ``[batch, channel]``."""
    return by_means / features[0, 0].numel() - slope_at_means


def _affine(features: Tensor, slope: Tensor, shift: Tensor) -> Tensor:
    """Return ``slope @ x + shift`` at every position, in the memory layout of ``features``; ``slope`` is symmetric."""
    columns = features.flatten(2)  # [batch, channel, position]
    if features.stride(1) == 1:  # channels last
        return torch.baddbmm(shift[:, None], columns.mT, slope).mT.view_as(features)
    return torch.baddbmm(shift[:, :, None], slope, columns).view_as(features)
