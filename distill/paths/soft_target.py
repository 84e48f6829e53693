"""Soft targets: the teacher's whole answer, not only its best guess."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from distill.batch import Batch
from distill.paths.softened import SoftenedPath, mean_binary_divergence, mean_divergence


class SoftTarget(SoftenedPath):
    """Matches the teacher's class probabilities, softened so that the small ones count.

    With logits ``s`` of the student and ``t`` of the teacher, ``[batch, class, ...]``::

        p = softmax(t / T)    q = softmax(s / T)
        loss = T^2 * mean over batch and places of sum over classes of p * log(p / q)

    Where each class has a probability of its own, as in many detectors, it is the divergence between yes and no::

        p = sigmoid(t / T)    q = sigmoid(s / T)
        loss = T^2 * mean over batch and places of sum over classes of (p * log(p / q) + (1 - p) log((1 - p) / (1 - q)))

    The factor ``T^2`` keeps the size of the gradient nearly independent of ``T``. The target is ``t``.

    Source: Hinton, Vinyals and Dean 2015 (arXiv:1503.02531); for each pixel as Liu et al. 2019 (arXiv:1903.04197), who
    weigh it by 10. Where others differ: torch's reduction ``mean`` divides by the number of classes too, ``batchmean``
    by no number of places; torchdistill leaves ``T^2`` out in one branch, KD_Lib compares probabilities by squares.
    Departure: a divergence that comes out below zero by rounding counts as zero.

    Of a detector nearly all locations are background, where both models are sure: the mean over them is small, and its
    weight has to be large, or adaptive.

    Args:
        temperature: ``T``, above 0; 4 as in Chennupati et al. 2021 and most CIFAR recipes; those for ImageNet use 1.
        standardize: whether to standardise each answer's logits first (Sun et al. 2024, arXiv:2403.01427; they use
            ``T = 2`` and weights of about 9); not for classes with a probability each.
    """

    takes_independent = True

    def loss(self, student: Tensor, teacher: Tensor, batch: Batch) -> Tensor:
        if self.independent:
            return self.temperature**2 * mean_binary_divergence(self.soften(teacher), self.soften(student))
        log_q = F.log_softmax(self.soften(student), dim=1)
        log_p = F.log_softmax(self.soften(teacher), dim=1)
        return self.temperature**2 * mean_divergence(log_p, log_q)
