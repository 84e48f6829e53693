"""Neuron selectivity transfer in Gram form: which channels respond together?"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from distill.paths.gram import GramPath, gram_distance

EPSILON = 1e-6  # channels shorter than this count as (almost) silent; see the docstring


class NSTGram(GramPath):
    """Matches which channels respond together: the cosines between all pairs of channels.

    For each stage, with adapted student features ``S`` and teacher features ``T`` as ``[channel, position]`` matrices
    whose rows have unit length::

        loss = mean over batch and all channel pairs of (S S' - T T')^2

    Where a teacher layer has more channels than positions the ``[channel, channel]`` matrices are never formed,
    because ``||S S' - T T'||^2 = ||S' S||^2 + ||T' T||^2 - 2 ||S' T||^2`` needs ``[position, position]`` ones alone.
    The difference cancels as the loss nears zero (absolute error about 1e-7 in float32, more under TF32), so it is
    cut off at zero. The target of such a layer is ``T``, ``[batch, channel, position]``, else the Gram matrix
    ``T T'``, ``[batch, channel, channel]``. Student and teacher may differ in height and width.

    The Gram matrix of ``S`` before its rows have unit length comes from the adapter, which may know it without forming
    the adapted map; it is divided by the rows' lengths, the roots of its diagonal, afterwards.

    Source: the form that Chennupati et al. 2021 (arXiv:2110.09674) code under the name NST. It is *not* the
    polynomial-kernel loss of Huang and Wang 2017 (arXiv:1707.01219) that RepDistiller and others ship: that one, here
    ``NSTPolynomial``, compares positions, ignores the order of channels, and needs no adapter.

    Departures: an adapter belongs to its path, while the paper's code shares one a stage among paths. Rows shorter
    than 1e-6 are divided by 1e-6 (the paper: 1e-12), which bounds the gradient of a channel that is silent.

    Args:
        taps: ``auto`` (the paper: every stage), or a list of ``{student: NAME, teacher: NAME}``.
    """

    target_options = ()

    def layer_target(self, layer: str, teacher: Tensor) -> Tensor:
        rows = _unit_rows(teacher)
        return rows if self._few_positions[layer] else rows @ rows.mT

    def layer_loss(self, layer: str, student: Tensor, target: Tensor) -> Tensor:
        if not self._few_positions[layer]:
            return F.mse_loss(_cosines(self.adapter(layer).gram(student)), target)
        rows = _unit_rows(self.adapt(layer, student))
        distance = gram_distance(rows, target)  # [batch]
        return (distance / rows.shape[1] ** 2).clamp_min(0).mean()


def _unit_rows(features: Tensor) -> Tensor:
    return F.normalize(features.flatten(2), dim=2, eps=EPSILON)  # [batch, channel, position]


def _cosines(gram: Tensor) -> Tensor:
    lengths = gram.diagonal(dim1=1, dim2=2).clamp_min(EPSILON**2).sqrt()  # [batch, channel]
    return gram / (lengths[:, :, None] * lengths[:, None])
