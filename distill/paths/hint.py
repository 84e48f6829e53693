"""Hints: can the teacher's middle features be foretold from the student's?"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from distill.paths.base import key
from distill.paths.sizes import pooled_alike
from distill.paths.whole_map import WholeMapPath
from distill.taps import Probe, Tap, TapPair


class Hint(WholeMapPath):
    """Matches the teacher's features half-way through, as a regressor foretells them from the student's.

    With the student's features ``s`` and the teacher's ``t`` at the middle stage, ``[channel, height, width]``, and the
    regressor ``r``, a convolution without bias followed by BatchNorm::

        loss = mean over batch, channels and positions of (r(s) - t)^2

    The regressor bridges widths and strides. Where both maps have the same stride it is a 3x3 convolution; where the
    teacher's is 2, 4, ... times as large, a convolution of that stride and a kernel of 3x3, 7x7, ...; where it is as
    many times smaller, a transposed convolution (4x4, 8x8, ...) of that stride. What paddings leave of a difference in
    height or width is removed by adaptive average pooling of the larger map to the smaller. No weight depends on the
    size of the images.

    The target is the teacher's whole map ``t``, ``[batch, channel, height, width]``.

    The original trains in two stages, the hint first and the rest of the method after it. ``schedule: {end: 0.3}``
    beside this path's options makes it leave when 0.3 of the training are done; other paths may ``start`` there.

    Source: Romero et al. 2015, *FitNets: hints for thin deep nets* (ICLR, arXiv:1412.6550), section 2.2. Departures:
    the mean of squares instead of half their sum; padded kernels of fixed size instead of unpadded ones that are one
    larger than the difference of the maps (1x1 where there is none); a regressor also where the shapes agree, and
    BatchNorm in it, as in the usual code. There is no ReLU behind it, as in the usual code, nor the teacher's
    non-linearity, as in the paper: it could not foretell what is negative, and a teacher's map need not have passed a
    ReLU. The usual weight is 100, in joint training.

    Args:
        taps: ``auto`` (the paper: the middle; of an even number of stages the earlier of both, since a deep hint leaves
            the student less freedom; every level of a pyramid), or a list of ``{student: NAME, teacher: NAME}``, each
            with its own regressor.
    """

    regressors: nn.ModuleDict

    def auto_pairs(self, student: Probe, teacher: Probe) -> tuple[TapPair, ...]:
        """Return the middle one of the pairs of stages; of pyramids all levels."""
        pairs = super().auto_pairs(student, teacher)
        if student.is_pyramid and teacher.is_pyramid:
            return pairs
        return (pairs[(len(pairs) - 1) // 2],)

    def build(self, student: Probe, teacher: Probe) -> None:
        """Build one regressor a pair."""
        self.regressors = nn.ModuleDict(
            {key(pair.layer): _Regressor(student[pair.student], teacher[pair.teacher]) for pair in self.pairs}
        )

    def layer_loss(self, layer: str, student: Tensor, target: Tensor) -> Tensor:
        regressed, target = pooled_alike(self.regressors[key(layer)](student), target)
        return F.mse_loss(regressed, target)


class _Regressor(nn.Module):
    """From the student's channels and stride to the teacher's."""

    def __init__(self, student: Tap, teacher: Tap) -> None:
        super().__init__()
        self.convolution = _convolution(student.channels, teacher.channels, teacher.octave - student.octave)
        self.norm = nn.BatchNorm2d(teacher.channels)

    def forward(self, features: Tensor) -> Tensor:
        """Map ``[batch, channel, height, width]`` of the student to the teacher's width, and nearly to its size."""
        regressed: Tensor = self.norm(self.convolution(features))
        return regressed


def _convolution(in_channels: int, out_channels: int, octaves: int) -> nn.Module:
    """Return a convolution whose output has ``2**octaves`` times the stride of its input; it skips no position."""
    stride = 2 ** abs(octaves)
    if octaves < 0:
        return nn.ConvTranspose2d(in_channels, out_channels, 2 * stride, stride, padding=stride // 2, bias=False)
    reach = max(stride - 1, 1)
    return nn.Conv2d(in_channels, out_channels, 2 * reach + 1, stride, padding=reach, bias=False)
