"""What the paths share that match attention maps: the energy of all channels at each position."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any

import torch
from torch import Tensor

from distill.paths.base import FeaturePath
from distill.paths.sizes import pooled_alike

EPSILON = 1e-6  # as in the code of Chennupati et al. 2021; keeps the map of an all-zero feature finite


class AttentionPath(FeaturePath):
    """A feature path between attention maps of unit length; subclasses say what their distance is.

    For features ``f`` of shape ``[channel, height, width]``::

        A = sum over channels of f^2          A' = A / (||A||_2 + 1e-6)

    The student's features enter raw: energy needs no equal width, so there is no adapter. The target is the
    teacher's ``A``, ``[batch, height, width]``, not yet normalised, since maps of different size are brought to the
    smaller height and width by adaptive average pooling first. Paths of this kind share their stored targets.
    """

    target_options = ()

    def layer_target(self, layer: str, teacher: Tensor) -> Tensor:
        return _energy(teacher)

    def layer_loss(self, layer: str, student: Tensor, target: Tensor) -> Tensor:
        own, other = pooled_alike(_energy(student), target)
        return self.distance(_unit(own), _unit(other))

    @abstractmethod
    def distance(self, student: Tensor, teacher: Tensor) -> Tensor:
        """Compute one layer's scalar loss from both maps ``A'``, ``[batch, height, width]``."""


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


def _unit(energy: Tensor) -> Tensor:
    norm: Tensor = torch.linalg.vector_norm(energy, dim=(1, 2), keepdim=True)
    return energy / (norm + EPSILON)
