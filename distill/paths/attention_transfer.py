"""Attention transfer: where does the network look?"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from distill.paths.base import FeaturePath

EPSILON = 1e-6  # as in the paper's code; keeps the map of an all-zero feature finite


class AttentionTransfer(FeaturePath):
    """Matches *where* both networks respond: the energy of all channels at each position, as a map of unit length.

    For each stage, with features ``f`` of shape ``[channel, height, width]``::

        A = sum over channels of f^2          A' = A / (||A||_2 + 1e-6)
        loss = mean over batch, height and width of (A'_student - A'_teacher)^2

    The student's features enter raw: energy needs no equal width, so there is no adapter. The target is the
    teacher's ``A``, ``[batch, height, width]``, not yet normalised, since maps of different size are brought to the
    smaller height and width by adaptive average pooling first.

    Source: Zagoruyko and Komodakis 2017 (arXiv:1612.03928), in the form that Chennupati et al. 2021 (arXiv:2110.09674)
    code. Where others differ: the text of the former takes the norm of the difference instead of its mean square;
    RepDistiller averages over channels (the same after normalising, but for the 1e-6); the usual constant weight is
    1000 because a mean over positions of unit maps is small. Pooling where sizes differ is ours.

    Args:
        taps: ``auto`` (the paper: every stage), or a list of ``{student: NAME, teacher: NAME}``.
    """

    target_options = ()

    def layer_target(self, layer: str, teacher: Tensor) -> Tensor:
        return _energy(teacher)

    def layer_loss(self, layer: str, student: Tensor, target: Tensor) -> Tensor:
        energy = _energy(student)
        size = (min(energy.shape[1], target.shape[1]), min(energy.shape[2], target.shape[2]))
        return F.mse_loss(_unit(_pool(energy, size)), _unit(_pool(target, size)))


def _energy(features: Tensor) -> Tensor:
    energy: Tensor = _Energy.apply(features)
    return energy  # [batch, height, width]


class _Energy(torch.autograd.Function):
    """Neither forward nor backward holds a second tensor of the map's size beside the gradient, as autograd would."""

    @staticmethod
    def forward(ctx: Any, features: Tensor) -> Tensor:
        ctx.save_for_backward(features)
        norm: Tensor = torch.linalg.vector_norm(features, dim=1)
        return norm.square()

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        (features,) = ctx.saved_tensors
        by_map: Tensor = features * (2 * gradients[0])[:, None]
        return by_map


def _pool(energy: Tensor, size: tuple[int, int]) -> Tensor:
    if energy.shape[1:] == size:  # pooling to the same size would be the identity, but not deterministic on CUDA
        return energy
    pooled: Tensor = F.adaptive_avg_pool2d(energy, size)
    return pooled


def _unit(energy: Tensor) -> Tensor:
    norm: Tensor = torch.linalg.vector_norm(energy, dim=(1, 2), keepdim=True)
    return energy / (norm + EPSILON)
