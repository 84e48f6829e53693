"""The adaptation layer of the paper: brings a student map to the teacher's width."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from distill.moments import pooled_moments, sample_moments


class Adapter(nn.Module):
    """1x1 convolution without bias (Kaiming, fan-out) followed by BatchNorm.

    Source: the adaptation layers of Chennupati et al. 2021 (arXiv:2110.09674).

    An adapter is an affine map ``y = W x + b`` of every position ``x`` of the student's map, and BatchNorm's part of
    ``W`` and ``b`` depends on ``x`` by mean and covariance alone. So the Gram matrices and the spatial means of the
    adapted map follow from the moments of the student's map, which is narrower: :meth:`gram` and :meth:`means` do not
    form the adapted map where that costs more multiply-adds. Either way they have the values, the gradients and the
    effect on BatchNorm's running statistics that :meth:`forward` would have, up to rounding.

    Args:
        in_channels: width of the student's map.
        out_channels: width of the teacher's map.
    """

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(in_channels, out_channels, kernel_size=1, bias=False)
        self.norm = nn.BatchNorm2d(out_channels)
        nn.init.kaiming_normal_(self.convolution.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, features: Tensor) -> Tensor:
        """Map ``[batch, in_channels, height, width]`` to ``[batch, out_channels, height, width]``."""
        adapted: Tensor = self.norm(self.convolution(features))
        if len(adapted) == 1 and adapted.requires_grad:
            # BatchNorm on CPU (torch 2.14) returns a wrong gradient for one sample if the incoming one is transposed.
            adapted.register_hook(_contiguous)  # type: ignore[no-untyped-call]
        return adapted

    def means(self, features: Tensor) -> Tensor:
        """Return the mean over positions of the adapted map, ``[batch, out_channels]``.

        Multiply-adds of forward and backward, with ``C`` channels in, ``D`` out, ``P`` positions and ``B`` samples:
        ``3 B P C D`` by the map, ``2 B P C^2 + 3 C^2 D + 3 B C D`` by the moments.
        """
        batch, positions, wide, out = self._sizes(features)
        by_map = 3 * batch * positions * wide * out
        by_moments = 2 * batch * positions * wide**2 + 3 * wide**2 * out + 3 * batch * wide * out
        if by_map <= by_moments or not self._knows_moments(features):
            adapted: Tensor = self(features)
            return adapted.mean(dim=(2, 3))
        means, scatter = pooled_moments(features)
        return self._fold(means, scatter, positions).means

    def gram(self, features: Tensor) -> Tensor:
        """Return the Gram matrix of each sample's adapted map, ``[batch, out_channels, out_channels]``.

        Multiply-adds of forward and backward, in the letters of :meth:`means`: ``3 B P C D + 3 B P D^2`` by the map,
        ``2 B P C^2 + 3 B C^2 D + 3 B C D^2`` by the moments.
        """
        batch, positions, wide, out = self._sizes(features)
        by_map = 3 * batch * positions * (wide * out + out**2)
        by_moments = batch * (2 * positions * wide**2 + 3 * wide**2 * out + 3 * wide * out**2)
        if by_map <= by_moments or not self._knows_moments(features):
            adapted: Tensor = self(features)
            rows = adapted.flatten(2)
            return rows @ rows.mT
        means, scatter = sample_moments(features)
        affine = self._fold(means, scatter.sum(dim=0), positions)
        within = (scatter @ affine.weight.mT).mT @ affine.weight.mT  # [batch, out, out]: W Z Z' W'
        return torch.baddbmm(within, affine.means[:, :, None], affine.means[:, None], alpha=positions)

    def _sizes(self, features: Tensor) -> tuple[int, int, int, int]:
        return len(features), features.shape[2] * features.shape[3], features.shape[1], self.convolution.out_channels

    def _knows_moments(self, features: Tensor) -> bool:
        """Whether BatchNorm sees these samples alone: SyncBatchNorm sees those of all ranks, and has its own class.

        BatchNorm refuses to train on a single value a channel; that is left to itself.
        """
        plain = type(self.norm) is nn.BatchNorm2d
        return plain and not (self.norm.training and len(features) * features[0, 0].numel() == 1)

    def _fold(self, means: Tensor, scatter: Tensor, positions: int) -> _Affine:
        """Fold convolution and BatchNorm into one affine map, and update BatchNorm's running statistics.

        Args:
            means: ``[batch, in]``, of each sample over its positions.
            scatter: ``[in, in]``, of all positions around the mean of their sample, summed.
            positions: number of positions of a sample.
        """
        weight = self.convolution.weight.flatten(1)  # [out, in]
        centre = means.mean(dim=0)
        around = means - centre
        norm = self.norm
        if norm.training:
            # The law of total covariance: within the samples, and between their means.
            covariance = scatter / (len(means) * positions) + around.mT @ around / len(means)
            variance = ((weight @ covariance) * weight).sum(dim=1).clamp_min(0)
            self._track(weight @ centre, variance, len(means) * positions)
            mean: Tensor = norm.bias
        else:
            running_mean, variance, _ = self._running_statistics()
            mean = norm.bias + norm.weight * torch.rsqrt(variance + norm.eps) * (weight @ centre - running_mean)
        folded = (norm.weight * torch.rsqrt(variance + norm.eps))[:, None] * weight
        return _Affine(folded, around @ folded.mT + mean)

    @torch.no_grad()
    def _track(self, mean: Tensor, variance: Tensor, count: int) -> None:
        """Update the running statistics as BatchNorm does: variances without bias; momentum None is the plain mean."""
        running_mean, running_var, num_batches = self._running_statistics()
        num_batches.add_(1)
        momentum = 1 / float(num_batches) if self.norm.momentum is None else self.norm.momentum
        running_mean.lerp_(mean.to(running_mean.dtype), momentum)
        running_var.lerp_((variance * (count / (count - 1))).to(running_var.dtype), momentum)

    def _running_statistics(self) -> tuple[Tensor, Tensor, Tensor]:
        norm = self.norm
        assert norm.running_mean is not None
        assert norm.running_var is not None
        assert norm.num_batches_tracked is not None
        return norm.running_mean, norm.running_var, norm.num_batches_tracked


class _Affine(NamedTuple):
    """Convolution and BatchNorm as one map.

    Attributes:
        weight: ``[out, in]``.
        means: ``[batch, out]``, the adapted spatial mean of each sample.
    """

    weight: Tensor
    means: Tensor


def _contiguous(gradient: Tensor | None) -> Tensor | None:
    return None if gradient is None else gradient.contiguous()
