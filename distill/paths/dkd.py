"""Decoupled distillation: how sure the teacher is, and how it ranks what it does not choose, apart."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from distill.batch import Batch
from distill.options import finite
from distill.paths.known import known_labels, mean_of_known
from distill.paths.softened import SoftenedPath, divergence


class DKD(SoftenedPath):
    """Matches the probability of the labelled class, and the probabilities among all other classes, separately.

    With ``p = softmax(t / T)`` of the teacher, ``q = softmax(s / T)`` of the student, and the label ``y``::

        target class = KL of (q_y, 1 - q_y) from (p_y, 1 - p_y)
        other classes = KL of q / (1 - q_y) from p / (1 - p_y), over all classes but y
        loss = T^2 * mean over batch and places of (alpha * target class + beta * other classes)

    SoftTarget is the same with ``alpha = 1`` and ``beta = 1 - p_y``: it mutes the ranking of the other classes where
    the teacher is sure. The probability of the other classes together comes from a sum of exponentials, not from
    ``1 - q_y``, which rounds to zero. Labels have to be single classes: none of MixUp. Pixels whose label
    is not known (255) are left out of the mean; where none is known the loss is 0. The target is ``t``.

    Source: Zhao et al. 2022, *Decoupled knowledge distillation* (arXiv:2203.08679), equations 6 and 7. Their
    configurations have ``beta`` from 0.25 to 8 by the pair of models, and let the loss grow over 20 of 240 epochs on
    CIFAR (``schedule: {warm_up: 0.083}``), over 1 of 100 on ImageNet.

    Args:
        temperature: ``T``, above 0; 4 as theirs on CIFAR, 1 on ImageNet.
        alpha: weight of the target class, at least 0.
        beta: weight of the other classes, at least 0; theirs is 2, 6 or 8 on CIFAR, 0.5 or 2 on ImageNet.
        standardize: whether to standardise each answer's logits first (Sun et al. 2024, arXiv:2403.01427).

    Raises:
        ValueError: an option is out of bounds.
    """

    needs_labels = ("images", "pixels")

    def __init__(
        self, temperature: float = 4.0, alpha: float = 1.0, beta: float = 8.0, standardize: bool = False
    ) -> None:
        super().__init__(temperature, standardize)
        self.alpha = finite("alpha", alpha, at_least=0)
        self.beta = finite("beta", beta, at_least=0)

    def loss(self, student: Tensor, teacher: Tensor, batch: Batch) -> Tensor:
        labels, known = known_labels(student, batch)
        target, others = (_decouple(self.soften(logits), labels[:, None]) for logits in (teacher, student))
        (binary_p, other_p), (binary_q, other_q) = target, others
        parts = self.alpha * divergence(binary_p, binary_q) + self.beta * divergence(other_p, other_q)
        return self.temperature**2 * mean_of_known(parts, known)


def _decouple(logits: Tensor, label: Tensor) -> tuple[Tensor, Tensor]:
    """Return log-probabilities of label and rest, ``[batch, 2, ...]``, and among the rest, ``[batch, class, ...]``.

    The labelled class is 0 among the rest, in both models: it adds nothing to a divergence.
    """
    without = logits.scatter(1, label, -torch.inf)
    pair = torch.stack([logits.gather(1, label)[:, 0], without.logsumexp(dim=1)], dim=1)
    return F.log_softmax(pair, dim=1), F.log_softmax(without, dim=1).scatter(1, label, 0.0)
