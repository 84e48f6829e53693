"""Weighted soft labels: the teacher counts where the student still needs it."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from distill.batch import Batch
from distill.paths.known import known_labels, mean_of_known
from distill.paths.softened import SoftenedPath, divergence

EPSILON = 1e-7
"""Added to the teacher's loss, as in the authors' code."""


class WSLD(SoftenedPath):
    """Matches soft targets, each sample as much as the student is behind the teacher on its label.

    With ``p = softmax(t / T)``, ``q = softmax(s / T)``, and the losses ``c_s`` and ``c_t`` of student and teacher
    (cross-entropy with the label, at temperature 1)::

        weight = 1 - exp(-c_s / c_t)                  # without gradient
        loss = T^2 * mean over batch and places of weight * sum over classes of p * log(p / q)

    Where the student is better than the teacher already, soft labels cost it more bias than they save variance. Labels
    have to be single classes. Pixels whose label is not known (255) are left out of the mean; where none is known the
    loss is 0. The target is ``t``.

    Source: Zhou et al. 2021, *Rethinking soft labels for knowledge distillation: a bias-variance tradeoff perspective*
    (ICLR, arXiv:2102.00650). Departure: the divergence instead of their cross-entropy, which differs by the entropy of
    ``p``: the gradient is the same, and the loss is zero where both agree, so that learned weights make sense.

    Args:
        temperature: ``T``, above 0; theirs is 2 with a weight of 2.5 on ImageNet, and 4 with 2.25 on CIFAR-100.
        standardize: whether to standardise each answer's logits first, for the divergence alone (Sun et al. 2024,
            arXiv:2403.01427).
    """

    needs_labels = ("images", "pixels")

    def __init__(self, temperature: float = 2.0, standardize: bool = False) -> None:
        super().__init__(temperature, standardize)

    def loss(self, student: Tensor, teacher: Tensor, batch: Batch) -> Tensor:
        labels, known = known_labels(student, batch)
        behind = _cross_entropy(student.detach(), labels)
        weight = -(-behind / (_cross_entropy(teacher, labels) + EPSILON)).expm1()  # [batch, ...]
        log_q = F.log_softmax(self.soften(student), dim=1)
        log_p = F.log_softmax(self.soften(teacher), dim=1)
        return self.temperature**2 * mean_of_known(weight * divergence(log_p, log_q), known)


def _cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    return F.cross_entropy(logits, labels, reduction="none")
