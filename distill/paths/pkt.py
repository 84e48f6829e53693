"""Probabilistic knowledge transfer: which images are neighbours, as probabilities?"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from distill.paths.batch_dependent import BatchDependentFeatures
from distill.paths.pooled import PooledPath, pooled
from distill.paths.softened import mean_divergence

EPSILON = 1e-7  # likenesses and lengths below this count as this; the authors add as much to lengths


class PKT(BatchDependentFeatures, PooledPath):
    """Matches which images of a batch are neighbours: for each image, a distribution over the others.

    With the pooled features ``x``, ``[batch, channel]``, of either model::

        K_ij = (1 + cosine(x_i, x_j)) / 2
        p_ij = K_ij / sum over all k but i of K_ik                     # q of the student, p of the teacher
        loss = mean over i of (sum over all j but i of p_ij * log(p_ij / q_ij))

    Only images are compared, so widths and sizes of student and teacher may differ and there is no adapter; rotations
    of the features and a factor for each image change nothing. The loss depends on the batch: each worker looks at
    its own share, or with ``gather`` at the whole batch. It needs three images: with two each has one neighbour, of
    probability 1, and the loss is 0. The target is the teacher's ``x``, ``[batch, channel]``.

    Source: Passalis and Tefas 2018, *Learning deep representations with probabilistic knowledge transfer* (ECCV,
    arXiv:1803.10837), section 3, with the cosine kernel. Departures: the paper sums over ``i``; here as for other paths
    the mean is taken, so that a weight serves every batch size. Likenesses below 1e-7 count as 1e-7, as lengths do.
    Where others differ: the authors' code, and RepDistiller after it, let an image be its own neighbour, add 1e-7
    to the probabilities inside the logarithm, and take the mean over all pairs instead of the sum over ``j``, a value
    that is ``batch`` times smaller: RepDistiller's weight of 30000 at a batch of 64 is about 470 here.

    Args:
        taps: ``auto`` (the deepest features), or a list of ``{student: NAME, teacher: NAME}``.
        gather: whether to compare the images of all workers.
    """

    def layer_loss(self, layer: str, student: Tensor, target: Tensor) -> Tensor:
        log_q = _log_neighbours(self.together(pooled(student)))
        return mean_divergence(_log_neighbours(self.together(target)), log_q)


def _log_neighbours(rows: Tensor) -> Tensor:
    """Return ``log p``, ``[sample, sample]``; on the diagonal a number so low that its exponential is 0."""
    unit = F.normalize(rows, dim=1, eps=EPSILON)
    likeness = ((1 + unit @ unit.mT) / 2).clamp_min(EPSILON)
    itself = torch.eye(len(rows), dtype=torch.bool, device=rows.device)
    return F.log_softmax(likeness.log().masked_fill(itself, torch.finfo(rows.dtype).min), dim=1)
