"""Relational knowledge distillation: the distances between images, and the angles of three of them."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from distill.paths.base import TapChoice
from distill.paths.batch_dependent import BatchDependent
from distill.paths.pooled import PooledPath, pooled

EPSILON = 1e-12
"""The mean distance counts as no less than this: images that are all alike have none."""

CHUNK = 2**22
"""Cosines that are held at once, as far as one vertex's are not more: 32 MiB."""


class RKDDistance(BatchDependent, PooledPath):
    """Matches how far apart the images of a batch are, in units of their mean distance.

    With the pooled features ``x``, ``[batch, channel]``, of either model::

        d_ij = |x_i - x_j|              D_ij = d_ij / mean over the positive d of d
        loss = mean over all batch^2 pairs of Huber(D_ij of the student - D_ij of the teacher)

    where ``Huber(g)`` is ``g^2 / 2`` up to ``|g| = 1`` and ``|g| - 1/2`` from there. Widths and sizes of student and
    teacher may differ and there is no adapter; rotations, reflections, shifts and a common factor of the features
    change nothing. The loss depends on the batch: each worker looks at its own share, or with ``gather`` at the whole
    batch. Up to two images cost nothing. The target is the teacher's ``x``, ``[batch, channel]``.

    Distances are exact, not from inner products, whose difference cancels for images that are close; no tensor larger
    than ``[batch, batch]`` and ``[batch, channel]`` is made. Images that are equal have distance 0 and push each other
    nowhere.

    Source: Park et al. 2019, *Relational knowledge distillation* (CVPR, arXiv:1904.05068), section 3.2.1. Of their
    code: the mean over all pairs, an image with itself among them, instead of the sum; the mean of the positive
    distances. Departure: their code raises distances to 1e-6 at least, ours has no such floor, but divides by 1e-12 at
    least. The usual constant weight is 25.

    Args:
        taps: ``auto`` (the deepest features), or a list of ``{student: NAME, teacher: NAME}``.
        gather: whether to compare the images of all workers.
    """

    def __init__(self, taps: TapChoice = "auto", gather: bool = False) -> None:
        super().__init__(taps)
        self.gather = gather

    def layer_loss(self, layer: str, student: Tensor, target: Tensor) -> Tensor:
        own, other = self.together(pooled(student)), self.together(target)
        return F.smooth_l1_loss(_relative(_distances(own)), _relative(_distances(other)))


class RKDAngle(BatchDependent, PooledPath):
    """Matches the angles of the triangles that any three images of a batch form.

    With the pooled features ``x``, ``[batch, channel]``, of either model::

        e_ij = (x_i - x_j) / |x_i - x_j|             # 0 where the images are equal
        A_ijk = e_ij . e_kj                          # cosine of the angle at j
        loss = mean over all batch^3 triplets of Huber(A_ijk of the student - A_ijk of the teacher)

    with the ``Huber`` of :class:`RKDDistance`. Widths and sizes of student and teacher may differ and there is no
    adapter; rotations, reflections, shifts and a common factor of the features change nothing. The loss depends on the
    batch: each worker looks at its own share, or with ``gather`` at the whole batch, where every worker does all the
    work. Up to two images cost nothing. The target is the teacher's ``x``, ``[batch, channel]``.

    The cosines follow from the squared distances by the law of cosines, without any ``[batch, batch, channel]``
    tensor; in float64, since their difference cancels for images that are close. ``batch^3`` of them have to be looked
    at, but are not kept: value and gradient are made together, some vertices at a time, and what stays for the backward
    pass is ``[batch, channel]``. At work are a handful of tensors of 32 MiB, or of 8 ``batch^2`` bytes where that is
    more. Time grows with ``batch^3``: 2 million triplets for 128 images, 134 million for 512.

    Source: Park et al. 2019, *Relational knowledge distillation* (CVPR, arXiv:1904.05068), section 3.2.2. Of their
    code: the mean over all triplets, those that name an image twice among them, instead of the sum. Departure: the
    direction from an image to its equal has no gradient; in their code it has one times 1e12. The usual constant weight
    is 50.

    Args:
        taps: ``auto`` (the deepest features), or a list of ``{student: NAME, teacher: NAME}``.
        gather: whether to compare the images of all workers.
    """

    def __init__(self, taps: TapChoice = "auto", gather: bool = False) -> None:
        super().__init__(taps)
        self.gather = gather

    def layer_loss(self, layer: str, student: Tensor, target: Tensor) -> Tensor:
        loss: Tensor = _AngleLoss.apply(self.together(pooled(student)), self.together(target))
        return loss


def _distances(rows: Tensor) -> Tensor:
    distances: Tensor = _Distances.apply(rows)
    return distances  # [sample, sample]


def _relative(distances: Tensor) -> Tensor:
    mean = distances.sum() / (distances > 0).sum().clamp_min(1)
    return distances / mean.clamp_min(EPSILON)


class _Distances(torch.autograd.Function):
    """The gradient is one matrix product; torch.cdist's makes a ``[sample, sample, channel]`` tensor on CUDA."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor) -> Tensor:
        distances = _exact_distances(rows)
        ctx.save_for_backward(rows, distances)
        return distances

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        rows, distances = ctx.saved_tensors
        return _apart(gradients[0] * _inverse(distances), rows)


class _AngleLoss(torch.autograd.Function):
    """The loss between ``[sample, channel]`` of both models; its gradient is computed along with it."""

    @staticmethod
    def forward(ctx: Any, student: Tensor, teacher: Tensor) -> Tensor:
        rows = student.double()
        sides, inverse = _triangles(rows)
        teacher_triangles = _triangles(teacher.double())
        count = len(rows)
        loss, across, along = rows.new_zeros(()), torch.zeros_like(sides), []
        step = max(1, CHUNK // count**2)
        for first in range(0, count, step):
            vertices = slice(first, first + step)
            cosines = _cosines(sides, inverse, vertices)  # [vertex, sample, sample]
            gap = cosines - _cosines(*teacher_triangles, vertices)
            slope = gap.clamp(-1, 1)  # of Huber's function
            loss = loss + (slope * (gap - slope / 2)).sum()
            legs = inverse[vertices]
            pull = slope * legs[:, :, None] * legs[:, None]
            across = across - pull.sum(dim=0) / 2
            along.append(pull.sum(dim=2) - legs.square() * (slope * cosines).sum(dim=2))
        # What the loss gains by each squared distance, opposite the vertex and beside it; twice the difference of the
        # two images is what the squared distance gains.
        by_square = torch.cat(along) + across
        gradient = _apart(2 * by_square / count**3, rows)
        ctx.save_for_backward(gradient.to(student.dtype))
        return (loss / count**3).to(student.dtype)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        (gradient,) = ctx.saved_tensors
        return gradients[0] * gradient, None


def _triangles(rows: Tensor) -> tuple[Tensor, Tensor]:
    """Return the squared distances and the inverse distances, 0 for 0, both ``[sample, sample]``."""
    distances = _exact_distances(rows)
    return distances.square(), _inverse(distances)


def _cosines(sides: Tensor, inverse: Tensor, vertices: slice) -> Tensor:
    """Return ``(|a|^2 + |b|^2 - |a - b|^2) / (2 |a| |b|)`` at these vertices, ``[vertex, sample, sample]``."""
    legs, inverse = sides[vertices], inverse[vertices]
    return (legs[:, :, None] + legs[:, None] - sides) / 2 * inverse[:, :, None] * inverse[:, None]


def _exact_distances(rows: Tensor) -> Tensor:
    return torch.cdist(rows, rows, compute_mode="donot_use_mm_for_euclid_dist")


def _inverse(distances: Tensor) -> Tensor:
    return (1 / distances).masked_fill(distances == 0, 0)


def _apart(weights: Tensor, rows: Tensor) -> Tensor:
    """Return for each sample ``i`` the sum over ``j`` of ``(weights_ij + weights_ji) (rows_i - rows_j)``."""
    weights, rows = weights + weights.mT, rows - rows.mean(dim=0)
    return weights.sum(dim=1, keepdim=True) * rows - weights @ rows
