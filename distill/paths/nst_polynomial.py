"""Neuron selectivity transfer as its paper writes it: do the channels respond to the same places, whoever is who?"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from distill.paths.gram import columns_are_few, gram_distance
from distill.paths.sizes import pooled_alike
from distill.paths.whole_map import WholeMapPath

EPSILON = 1e-6  # channels shorter than this count as (almost) silent; see the docstring


class NSTPolynomial(WholeMapPath):
    """Matches the distribution of the places to which channels respond, whatever the order of the channels.

    For each stage, with student features ``S`` and teacher features ``T`` as ``[channel, position]`` matrices whose
    rows ``s_i`` and ``t_j`` have unit length, the squared maximum mean discrepancy of their rows under the kernel
    ``k(x, y) = (x' y)^2``::

        loss = mean over batch of (mean of k(s_i, s_j) + mean of k(t_i, t_j) - 2 mean of k(s_i, t_j))
             = mean over batch of ||S' S / C_s - T' T / C_t||^2

    with ``C_s`` and ``C_t`` channels, which may differ; each mean is over all pairs of channels. The second line needs
    ``[position, position]`` matrices alone; where a map has many more positions than channels, the first one is cheaper
    by ``[channel, channel]`` matrices, and is taken layer by layer. That difference cancels as the loss nears zero
    (absolute error about 1e-7 in float32), so it is cut off at zero.

    There is no adapter. The positions must be the same: maps of different size are brought to the smaller height and
    width by adaptive average pooling, before the rows get their unit length. The target is the teacher's whole map,
    ``[batch, channel, height, width]``: how long its rows are after pooling depends on the student's size.

    Source: Huang and Wang 2017, *Like what you like: knowledge distill via neuron selectivity transfer*
    (arXiv:1707.01219), with their polynomial kernel, d = 2 and c = 0. It is *not* the loss of ``NSTGram``, which
    compares channel with channel.

    Departures: every stage takes part, as in RepDistiller, while the authors' code has one map, the last BatchNorm's
    output; rows shorter than 1e-6 are divided by 1e-6 (the usual code: 1e-12), which bounds the gradient of a
    channel that is silent; the factor lambda / 2 is left to the aggregator, the usual weight is 50; the usual code
    pools to square maps and forms a ``[channel, channel, position]`` tensor.

    Args:
        taps: ``auto`` (every stage), or a list of ``{student: NAME, teacher: NAME}``.
    """

    def layer_loss(self, layer: str, student: Tensor, target: Tensor) -> Tensor:
        student, target = pooled_alike(student, target)
        rows, other = _unit_rows(student), _unit_rows(target)
        if columns_are_few(rows.shape[1], other.shape[1], rows.shape[2]):
            return gram_distance(rows.mT, other.mT).clamp_min(0).mean()
        return (rows.mT @ rows - other.mT @ other).square().sum(dim=(1, 2)).mean()


def _unit_rows(features: Tensor) -> Tensor:
    """Return unit rows over the root of their number, ``[batch, channel, position]``: sums of products are means."""
    rows = features.flatten(2)
    lengths: Tensor = torch.linalg.vector_norm(rows, dim=2, keepdim=True)
    return rows / (lengths.clamp_min(EPSILON) * math.sqrt(rows.shape[1]))
