"""Logits: the teacher's scores before the softmax."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from distill.batch import Batch
from distill.paths.base import LogitPath


class Logits(LogitPath):
    """Matches the teacher's logits by value.

    With logits ``s`` of the student and ``t`` of the teacher, ``[batch, class, ...]``::

        loss = mean over batch, classes and places of (s - t)^2

    It grows with the square of the logits' scale. The target is ``t``.

    Source: Ba and Caruana 2014 (arXiv:1312.6184). Where others differ: the paper halves the squares and
    sums them over classes; the mean, as in the usual code, is ``2 / classes`` times that. Some centre the logits of a
    sample first, since a shift of all of them changes no probability; we do not.
    """

    takes_independent = True

    def loss(self, student: Tensor, teacher: Tensor, batch: Batch) -> Tensor:
        return F.mse_loss(student, teacher)
