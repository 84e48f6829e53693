"""Similarity preserving: which images of a batch make the network respond alike?"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from distill.paths.batch_dependent import BatchDependentFeatures

EPSILON = 1e-12  # rows shorter than this are divided by it; keeps the likeness of all-zero features finite


class SP(BatchDependentFeatures):
    """Matches which images of a batch respond alike: the inner products of all pairs, over channels and positions.

    With the deepest map of each image as one row of ``Q``, ``[batch, channel * height * width]``::

        G = Q Q'                                            # [batch, batch]
        G' = every row of G divided by its Euclidean length
        loss = || G'_student - G'_teacher ||^2 / batch^2

    Only images are compared, so widths and sizes of student and teacher may differ and there is no adapter. A factor
    common to all features changes nothing. The loss depends on the batch: each worker looks at its own share, or with
    ``gather`` at the whole batch. A batch of one costs nothing.

    The target is ``Q`` of the teacher, ``[batch, channel * height * width]``, of which the inner products need every
    number: 401 kB an image in float32 for 2048 x 7 x 7, 16 kB for 64 x 8 x 8. It is the teacher's whole map, and costs
    a store as much.

    Source: Tung and Mori 2019, *Similarity-preserving knowledge distillation* (ICCV, arXiv:1907.09682), section 3, at
    the deepest features as in their experiments. Where others differ: torchdistill divides the rows by the sum of
    their magnitudes. The usual constant weight is 3000, because a mean over pairs of such rows is small. Departure:
    rows shorter than 1e-12 are divided by 1e-12.

    Args:
        taps: ``auto`` (the deepest features), or a list of ``{student: NAME, teacher: NAME}``.
        gather: whether to compare the images of all workers.
    """

    target_options = ()
    only_last = True
    one_level = True

    def layer_target(self, layer: str, teacher: Tensor) -> Tensor:
        return teacher.flatten(1)

    def layer_loss(self, layer: str, student: Tensor, target: Tensor) -> Tensor:
        return F.mse_loss(_likeness(self.together(_rows(student))), _likeness(self.together(target)))


def _rows(maps: Tensor) -> Tensor:
    """Return ``[batch, channel, height, width]`` as rows, in the order in memory: all rows alike, so it may be any."""
    return maps.movedim(1, 3).flatten(1) if maps.stride(1) == 1 else maps.flatten(1)


def _likeness(rows: Tensor) -> Tensor:
    gram: Tensor = _Gram.apply(rows)
    return F.normalize(gram, dim=1, eps=EPSILON)  # [batch, batch]


class _Gram(torch.autograd.Function):
    """The gradient takes one product with the long rows; autograd would take two."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor) -> Tensor:
        ctx.save_for_backward(rows)
        return rows @ rows.mT

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        (rows,) = ctx.saved_tensors
        by_rows: Tensor = (gradients[0] + gradients[0].mT) @ rows
        return by_rows
