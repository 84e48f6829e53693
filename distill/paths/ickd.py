"""Inter-channel correlation: to which other channels is each channel akin?"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from distill.paths.gram import GramPath

EPSILON = 1e-12
"""Rows of the Gram matrix shorter than this count as (almost) zero, as in the authors' code."""


class ICKD(GramPath):
    """Matches to which channels each channel is akin: the direction of its row in the Gram matrix.

    With adapted student features ``S`` and teacher features ``T`` as ``[channel, position]`` matrices::

        G = S S', each row divided by its length          H = T T' likewise
        loss = mean over batch and channels of ||row of G - row of H||^2

    It differs from ``NSTGram`` in what has unit length. There each channel has, so that the Gram matrix holds cosines
    and all pairs of channels count alike; here each row of the matrix has, so that in the row of a channel the strong
    channels outweigh the weak ones, and the loss of a channel lies between 0 and 4.

    Where a teacher layer has more than four times as many channels as positions the ``[channel, channel]`` matrices are
    never formed: with ``s_i`` a row of ``S``, lengths and products of rows are ``s_i' (S' S) s_i`` under the root and
    ``s_i' (S' T) t_i``. The distances that follow from them cancel near zero (absolute error about 1e-6 in float32), so
    they are cut off at zero. The target of such a layer is the teacher's map, ``[batch, channel, height, width]``, else
    ``H``, ``[batch, channel, channel]``. Student and teacher may differ in height and width.

    Source: Liu et al. 2021, *Exploring inter-channel correlation for diversity-preserved knowledge distillation* (ICCV,
    arXiv:2202.03680), ICKD-C in the form of the authors' code for CIFAR-100: the deepest features, rows of unit length,
    and a 1x1 convolution + BatchNorm on the student's side even where the widths agree. Their weight there is 2.5.
    Their code for ImageNet has a 3x3 convolution and divides by the batch once more, with the weight 500 for batches of
    256, about 2 here. Not done: the grid of their form for dense prediction.

    Args:
        taps: ``auto`` (the authors: the deepest features), or a list of ``{student: NAME, teacher: NAME}``.
    """

    target_options = ()
    only_last = True
    most_channels = 4

    def layer_target(self, layer: str, teacher: Tensor) -> Tensor:
        if self._few_positions[layer]:
            return teacher
        rows = teacher.flatten(2)
        return _unit_rows(rows @ rows.mT)

    def layer_loss(self, layer: str, student: Tensor, target: Tensor) -> Tensor:
        if self._few_positions[layer]:
            return _row_distances(self.adapt(layer, student).flatten(2), target.flatten(2)).mean()
        return (_unit_rows(self.adapter(layer).gram(student)) - target).square().sum(dim=2).mean()


def _unit_rows(gram: Tensor) -> Tensor:
    return F.normalize(gram, dim=2, eps=EPSILON)


def _row_distances(student: Tensor, teacher: Tensor) -> Tensor:
    """Return, channel by channel, the squared distance between the unit rows of both Gram matrices.

    Args:
        student: ``[batch, channel, position]``.
        teacher: likewise, of as many channels; the number of positions may differ.

    Returns:
        ``[batch, channel]``.
    """
    own, other = _row_energies(student), _row_energies(teacher)
    own_scale, other_scale = (energy.clamp_min(EPSILON**2).rsqrt() for energy in (own, other))
    products = ((student @ (student.mT @ teacher)) * teacher).sum(dim=2)
    squares = own * own_scale.square() + other * other_scale.square()
    # By Cauchy and Schwarz; rounding must not make a large loss of a weak row that is orthogonal to strong ones.
    cosines = (products * own_scale * other_scale).clamp(-1, 1)
    return (squares - 2 * cosines).clamp_min(0)


def _row_energies(rows: Tensor) -> Tensor:
    """Return the squared length of each row of ``R R'``, ``[batch, channel]``."""
    energies = ((rows @ (rows.mT @ rows)) * rows).sum(dim=2)
    # A row's product with itself is part of it; rounding must not take it below that, for it will be divided by.
    return torch.maximum(energies, rows.square().sum(dim=2).square())
