"""Soft targets: the teacher's whole answer, not only its best guess."""

from __future__ import annotations

import math

import torch.nn.functional as F
from torch import Tensor

from distill.batch import Batch
from distill.paths.base import LogitPath


class SoftTarget(LogitPath):
    """Matches the teacher's class probabilities, softened so that the small ones count.

    With logits ``s`` of the student and ``t`` of the teacher, ``[batch, class]``::

        p = softmax(t / T)    q = softmax(s / T)
        loss = T^2 * mean over batch of sum over classes of p * log(p / q)

    The factor ``T^2`` keeps the size of the gradient nearly independent of ``T``. The target is ``t``.

    Source: Hinton, Vinyals and Dean 2015 (arXiv:1503.02531). Where others differ: torch's reduction ``mean`` divides by
    the number of classes too, torchdistill leaves ``T^2`` out in one branch, KD_Lib compares probabilities by squares.
    Departure: a sample whose divergence comes out below zero by rounding counts as zero.

    Args:
        temperature: ``T``, above 0; 4 as in the paper's recipe and most CIFAR ones, while ImageNet recipes use 1.

    Raises:
        ValueError: ``temperature`` is not a finite number above 0.
    """

    def __init__(self, temperature: float = 4.0) -> None:
        super().__init__()
        number = isinstance(temperature, int | float) and not isinstance(temperature, bool)
        if not (number and 0 < temperature < math.inf):
            raise ValueError(f"temperature must be a finite number above 0, found {temperature!r}")
        self.temperature = float(temperature)

    def loss(self, student: Tensor, teacher: Tensor, batch: Batch) -> Tensor:
        log_q = F.log_softmax(student / self.temperature, dim=1)
        log_p = F.log_softmax(teacher / self.temperature, dim=1)
        divergence = F.kl_div(log_q, log_p, log_target=True, reduction="none").sum(dim=1)  # [batch]
        return self.temperature**2 * divergence.clamp_min(0).mean()
