"""Relational knowledge distillation: the distances between images, and the angles of three of them."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from distill.paths.batch_dependent import BatchDependentFeatures
from distill.paths.pooled import PooledPath, pooled

EPSILON = 1e-12
"""The mean distance counts as no less than this: images that are all alike have none."""

EQUAL = 2.0**-46
"""Squared distances up to this share of both images' squared distances from the mean image count as none: the images
differ by less than float32 tells apart, and no direction leads from one to the other."""

CHUNKS = {"cpu": 2**18, "other": 2**22}
"""Cosines that are looked at at once, as far as one vertex's are not more: what a processor's cache or a GPU likes."""


class RKDDistance(BatchDependentFeatures, PooledPath):
    """Matches how far apart the images of a batch are, in units of their mean distance.

    With the pooled features ``x``, ``[batch, channel]``, of either model::

        d_ij = |x_i - x_j|              D_ij = d_ij / mean over the positive d of d
        loss = mean over all batch^2 pairs of Huber(D_ij of the student - D_ij of the teacher)

    where ``Huber(g)`` is ``g^2 / 2`` up to ``|g| = 1`` and ``|g| - 1/2`` from there. Widths and sizes of student and
    teacher may differ and there is no adapter; rotations, reflections, shifts and a common factor of the features
    change nothing. The loss depends on the batch: each worker looks at its own share, or with ``gather`` at the whole
    batch. Up to two images cost nothing. The target is the teacher's ``x``, ``[batch, channel]``.

    Distances come from inner products of the centred features in float64, as the difference cancels for images that
    are close; no tensor larger than ``[batch, batch]`` and ``[batch, channel]`` is made. Images closer than about 1e-7
    of their distance from the mean image count as equal: they have distance 0, and push each other nowhere.

    Source: Park et al. 2019, *Relational knowledge distillation* (CVPR, arXiv:1904.05068), section 3.2.1. Of their
    code: the mean over all pairs, an image with itself among them, instead of the sum; the mean of the positive
    distances. Departures: their code raises distances to 1e-6 at least, here there is no such floor; the mean counts as
    1e-12 at least. The usual constant weight is 25.

    Args:
        taps: ``auto`` (the deepest features), or a list of ``{student: NAME, teacher: NAME}``.
        gather: whether to compare the images of all workers.
    """

    def layer_loss(self, layer: str, student: Tensor, target: Tensor) -> Tensor:
        own, other = self.together(pooled(student)), self.together(target)
        return F.smooth_l1_loss(_relative(_distances(own)), _relative(_distances(other))).to(student.dtype)


class RKDAngle(BatchDependentFeatures, PooledPath):
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
    tensor; its sum is taken in float64, as it cancels for images that are close. ``batch^3`` cosines have to be looked
    at, but are not kept: value and gradient are made together, some vertices at a time, and what stays for the backward
    pass is ``[batch, channel]``. At work are a handful of tensors of ``batch^2`` numbers, or of 2^18 on a CPU and 2^22
    on a GPU (32 MiB) where that is more. Time grows with ``batch^3``: 2 million cosines for 128 images, 134 million
    for 512.

    Source: Park et al. 2019, *Relational knowledge distillation* (CVPR, arXiv:1904.05068), section 3.2.2. Of their
    code: the mean over all triplets, those that name an image twice among them, instead of the sum. Departure: the
    direction from an image to its equal (in the sense of :class:`RKDDistance`) has no gradient; in their code it has
    one times 1e12. The usual constant weight is 50.

    Args:
        taps: ``auto`` (the deepest features), or a list of ``{student: NAME, teacher: NAME}``.
        gather: whether to compare the images of all workers.
    """

    def layer_loss(self, layer: str, student: Tensor, target: Tensor) -> Tensor:
        loss: Tensor = _AngleLoss.apply(self.together(pooled(student)), self.together(target))
        return loss


def _distances(rows: Tensor) -> Tensor:
    distances: Tensor = _Distances.apply(rows)
    return distances  # [sample, sample], float64


def _relative(distances: Tensor) -> Tensor:
    mean = distances.sum() / (distances > 0).sum().clamp_min(1)
    return distances / mean.clamp_min(EPSILON)


class _Distances(torch.autograd.Function):
    """The root has no slope at 0; here it has the slope 0."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor) -> Tensor:
        centred = _centred(rows)
        squares = _squares(centred)
        ctx.dtype = rows.dtype
        ctx.save_for_backward(centred, squares)
        return squares.sqrt()

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        centred, squares = ctx.saved_tensors
        return _apart(gradients[0] * _inverse_root(squares), centred).to(ctx.dtype)


class _AngleLoss(torch.autograd.Function):
    """The loss between ``[sample, channel]`` of both models; its gradient is computed along with it."""

    @staticmethod
    def forward(ctx: Any, student: Tensor, teacher: Tensor) -> Tensor:
        rows, scale = _in_own_scale(student)
        sides, inverse = _triangles(rows, student.dtype)
        teacher_triangles = _triangles(_in_own_scale(teacher)[0], student.dtype)
        count = len(rows)
        loss, across, along = rows.new_zeros(()), torch.zeros_like(sides), []
        step = max(1, CHUNKS.get(rows.device.type, CHUNKS["other"]) // count**2)
        for first in range(0, count, step):
            vertices = slice(first, first + step)
            cosines = _cosines(sides, inverse, vertices)  # [vertex, sample, sample]
            teacher_cosines = _cosines(*teacher_triangles, vertices)
            loss = loss + F.smooth_l1_loss(cosines, teacher_cosines, reduction="sum")
            slope = (cosines - teacher_cosines).clamp_(-1, 1)  # of Huber's function
            legs = inverse[vertices]
            turn = cosines.mul_(slope).sum(dim=2) * legs.square()
            pull = slope.mul_(legs[:, :, None]).mul_(legs[:, None])
            across = across - pull.sum(dim=0)
            along.append(pull.sum(dim=2) - turn)
        # The sum of the loss grows with a squared distance beside its vertex by `along`, opposite to it by half of
        # `across`; a squared distance grows by twice the difference of its two images.
        by_square = 2 * torch.cat(along) + across
        gradient = _apart(by_square / count**3, rows) / scale
        ctx.save_for_backward(gradient.to(student.dtype))
        return (loss / count**3).to(student.dtype)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        (gradient,) = ctx.saved_tensors
        return gradients[0] * gradient, None


def _centred(rows: Tensor) -> Tensor:
    rows = rows.double()
    return rows - rows.mean(dim=0)


def _in_own_scale(rows: Tensor) -> tuple[Tensor, Tensor]:
    """Return rows whose mean square length is 1, and what they were divided by: angles know no scale.

    So nothing overflows or vanishes in float32 that does not in float64.
    """
    centred = _centred(rows)
    scale = torch.linalg.vector_norm(centred) / len(rows) ** 0.5
    scale = scale.clamp_min(torch.finfo(scale.dtype).tiny)
    return centred / scale, scale


def _squares(centred: Tensor) -> Tensor:
    """Return the squared distances, ``[sample, sample]``."""
    gram = centred @ centred.mT
    lengths = gram.diagonal()
    both = lengths[:, None] + lengths
    squares = torch.sub(both, gram, alpha=2)
    return squares.masked_fill(squares <= EQUAL * both, 0)


def _triangles(centred: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Return half of the squared distances, and the inverse distances in ``dtype``, both ``[sample, sample]``."""
    squares = _squares(centred)
    return squares / 2, _inverse_root(squares).to(dtype)


def _cosines(sides: Tensor, inverse: Tensor, vertices: slice) -> Tensor:
    """Return ``(|a|^2 + |b|^2 - |a - b|^2) / (2 |a| |b|)`` at these vertices, ``[vertex, sample, sample]``."""
    legs, inverse = sides[vertices], inverse[vertices]
    inner = (legs[:, :, None] + legs[:, None]).sub_(sides)
    return inner.to(inverse.dtype).mul_(inverse[:, :, None]).mul_(inverse[:, None])


def _inverse_root(squares: Tensor) -> Tensor:
    """Return one over the root; 0 for 0."""
    return squares.rsqrt().masked_fill(squares == 0, 0)


def _apart(weights: Tensor, rows: Tensor) -> Tensor:
    """Return for each sample ``i`` the sum over ``j`` of ``(weights_ij + weights_ji) (rows_i - rows_j)``."""
    weights = weights + weights.mT
    return weights.sum(dim=1, keepdim=True) * rows - weights @ rows
