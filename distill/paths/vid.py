"""Variational information distillation: how much does the student's map tell about the teacher's?"""

from __future__ import annotations

import math
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from distill.options import finite
from distill.paths.base import TapChoice, key
from distill.paths.sizes import pooled_alike
from distill.paths.whole_map import WholeMapPath
from distill.taps import Probe

EPSILON = 1e-5
"""Added to the variance, as in the authors' code."""


class VID(WholeMapPath):
    """Raises the likelihood of the teacher's map under a normal distribution that is read off the student's map.

    That likelihood bounds from below what the student's map tells about the teacher's (their mutual information). For
    each stage, with student features ``s`` and teacher features ``t``, ``[channel, height, width]``, a learned mean
    ``mu`` (three 1x1 convolutions, each of the teacher's width, with ReLU between them) and a learned number ``rho`` a
    channel of the teacher::

        var = log(1 + exp(rho)) + 1e-5                                              # [channel]
        loss = mean over batch, channels and positions of ((mu(s) - t)^2 / var + log(var)) / 2

    A channel that the student cannot tell gets a large variance, and its error counts little. The loss **can be
    negative**: it lacks the constant ``log(2 pi) / 2``, and a density may exceed 1. So aggregators that take logarithms
    of losses refuse it. The variances are parameters of this path: they train, and they stand in checkpoints.

    The target is the teacher's map. Where height or width differ, the larger map is averaged down first.

    Source: Ahn et al. 2019, *Variational information distillation for knowledge transfer* (arXiv:1904.05835), its
    Gaussian with one variance a channel; the convolutions, their widths, the initial variance 5 and the 1e-5 are those
    of the authors' code as RepDistiller keeps it. The usual weight is 1. Departures: the mean over channels and
    positions is RepDistiller's, the paper sums; pooling looks at height and width apart, where that code looks at the
    height. In mdistiller the variances keep their first value, because no optimiser
    gets to know them.

    Args:
        taps: ``auto`` (every stage), or a list of ``{student: NAME, teacher: NAME}``.
        initial_variance: what every ``var`` starts from, above 1e-5.

    Raises:
        ValueError: an option is out of bounds.
    """

    non_negative = False

    def __init__(self, taps: TapChoice = "auto", initial_variance: float = 5.0) -> None:
        super().__init__(taps)
        self.initial_variance = finite("initial_variance", initial_variance, above=EPSILON)

    def build(self, student: Probe, teacher: Probe) -> None:
        """Build a mean and variances a pair."""
        self.likelihoods = nn.ModuleDict(
            {
                key(pair.layer): Likelihood(
                    student[pair.student].channels, teacher[pair.teacher].channels, self.initial_variance
                )
                for pair in self.pairs
            }
        )

    def likelihood(self, layer: str) -> Likelihood:
        """Return the distribution of a layer's teacher map."""
        return cast(Likelihood, self.likelihoods[key(layer)])

    def layer_loss(self, layer: str, student: Tensor, target: Tensor) -> Tensor:
        loss: Tensor = self.likelihood(layer)(*pooled_alike(student, target))
        return loss


class Likelihood(nn.Module):
    """A normal distribution of the teacher's value at each position: mean by the student's map, variance by channel.

    Args:
        in_channels: width of the student's map.
        out_channels: width of the teacher's map.
        variance: what the variances start from.
    """

    def __init__(self, in_channels: int, out_channels: int, variance: float) -> None:
        super().__init__()
        self.mean = nn.Sequential(
            nn.Conv2d(in_channels, out_channels, kernel_size=1, bias=False),
            nn.ReLU(),
            nn.Conv2d(out_channels, out_channels, kernel_size=1, bias=False),
            nn.ReLU(),
            nn.Conv2d(out_channels, out_channels, kernel_size=1, bias=False),
        )
        wanted = variance - EPSILON
        rho = wanted + math.log(-math.expm1(-wanted))  # log(exp(wanted) - 1), where exp may be too large a number
        self.rho = nn.Parameter(torch.full((out_channels,), rho))

    @property
    def variance(self) -> Tensor:
        """The present variances, ``[channel]``."""
        return F.softplus(self.rho) + EPSILON

    def forward(self, student: Tensor, teacher: Tensor) -> Tensor:
        """Return the mean negative logarithm of the density, without its constant."""
        # The variance is the same at every position: only the mean squared error of a channel meets it.
        error = (self.mean(student) - teacher).square().mean(dim=(0, 2, 3))  # [channel]
        variance = self.variance
        loss: Tensor = (error / variance + variance.log()).mean() / 2
        return loss
