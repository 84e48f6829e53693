"""Pearson distillation: does each channel rise and fall where the teacher's does?"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from distill.paths.batch_dependent import BatchDependentFeatures
from distill.paths.sizes import pooled_alike
from distill.paths.whole_map import WidthMatchedPath

EPSILON = 1e-12
"""Added to the variances: the square of the 1e-6 that the usual code adds to the standard deviations."""


class PKD(BatchDependentFeatures, WidthMatchedPath):
    """Matches how each channel varies over the images and positions of a batch, whatever its mean and its scale.

    For each stage, with every channel of student and teacher brought to mean 0 and variance 1 over batch and
    positions::

        s' = (s - mean) / sqrt(variance + 1e-12)          t' likewise
        loss = mean over batch, channels and positions of (s' - t')^2 / 2

    But for the 1e-12 that is the mean over channels of ``1 - r``, with Pearson's correlation ``r`` of the channel in
    both models, and so it is computed: from five moments of each sample and channel, without a standardised map. What
    their difference leaves over near zero is rounding (about 1e-7 in float32); it is cut off at zero.

    Mean and variance are those of the batch: with several workers each takes those of its own share. With ``gather``
    they are those of the whole batch, exactly, and no more than the moments travels between the workers.

    Where the numbers of channels differ the student's map passes a 1x1 convolution, without bias and BatchNorm, which
    the standardising would undo. Maps of different size are brought to the smaller height and width first, by adaptive
    average pooling of the larger. The target is the teacher's whole map, ``[batch, channel, height, width]``.

    Source: Cao et al. 2022, *PKD: general distillation framework for object detectors via Pearson correlation
    coefficient* (NeurIPS, arXiv:2207.02039). The paper's maps are the levels of a pyramid, as here for detectors; other
    models have stages. Departures: the usual code takes variances over n - 1, adds 1e-6 to their roots, resizes the
    student's map by interpolation, and refuses maps of different width. Its weights are 6 and 10.

    Args:
        taps: ``auto`` (every level, or stage), or a list of ``{student: NAME, teacher: NAME}``.
        gather: whether workers standardise over the whole batch instead of their share.
    """

    def make_adapter(self, in_channels: int, out_channels: int) -> nn.Module:
        return nn.Conv2d(in_channels, out_channels, kernel_size=1, bias=False)

    def layer_loss(self, layer: str, student: Tensor, target: Tensor) -> Tensor:
        student, target = pooled_alike(student, target)
        moments = self.together(_moments(self.adapt(layer, student), target))
        means, within = moments[:, :2], moments[:, 2:]
        own, other = (means - means.mean(dim=0)).unbind(dim=1)  # [sample, channel]
        # The law of total covariance: within the samples, and between their means.
        covariances = within.mean(dim=0) + torch.stack([own * own, other * other, own * other]).mean(dim=1)
        by_student, by_teacher, both = covariances.unbind()  # [channel]
        student_scale, teacher_scale = torch.rsqrt(by_student + EPSILON), torch.rsqrt(by_teacher + EPSILON)
        squares = by_student * student_scale.square() + by_teacher * teacher_scale.square()
        return (squares / 2 - both * student_scale * teacher_scale).mean().clamp_min(0)


def _moments(student: Tensor, teacher: Tensor) -> Tensor:
    """Return means, variances and covariance of each sample's channels over the positions, no gradient in the teacher.

    Returns:
        ``[batch, 5, channel]``: both means, both variances, the covariance; student first.
    """
    moments: Tensor = _Moments.apply(student, teacher)
    return moments


class _Moments(torch.autograd.Function):
    """Autograd would keep both centred maps for backward, and form seven maps there; this keeps none and forms two."""

    @staticmethod
    def forward(ctx: Any, student: Tensor, teacher: Tensor) -> Tensor:
        means = [maps.mean(dim=(2, 3), keepdim=True) for maps in (student, teacher)]
        own, other = student - means[0], teacher - means[1]  # first of all, so that a large mean costs no digits
        ctx.save_for_backward(student, teacher, *means)
        squares = [torch.linalg.vector_norm(maps, dim=(2, 3)).square() for maps in (own, other)]
        sums = torch.stack([*squares, (own * other).sum(dim=(2, 3))], dim=1)
        return torch.cat([torch.cat(means, dim=3)[:, :, 0].mT, sums / own[0, 0].numel()], dim=1)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        student, teacher, own_mean, other_mean = ctx.saved_tensors
        by_mean, _, by_variance, _, by_both = (gradients[0] / student[0, 0].numel())[..., None, None].unbind(dim=1)
        shift = by_mean - 2 * by_variance * own_mean - by_both * other_mean
        return torch.addcmul(torch.addcmul(shift, student, 2 * by_variance), teacher, by_both), None
