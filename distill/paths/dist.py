"""Relations between answers instead of the answers themselves."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from distill.batch import Batch
from distill.options import finite
from distill.paths.batch_dependent import BatchDependent
from distill.paths.softened import SoftenedPath

EPSILON = 1e-8
"""Added to the product of the norms, as in the authors' code."""


class DIST(BatchDependent, SoftenedPath):
    """Matches how classes relate within a sample and how samples relate within a class, by Pearson's correlation.

    With ``p = softmax(t / T)`` and ``q = softmax(s / T)``, ``[sample, class]``, where each pixel of a dense answer is a
    sample::

        between classes = mean over samples of (1 - correlation over classes of p and q)
        between samples = mean over classes of (1 - correlation over samples of p and q)
        loss = T^2 * (beta * between classes + gamma * between samples)

    A correlation forgives scale and shift, so a small student need not be as sure as a large teacher. The second term
    depends on the batch: each worker looks at its own share, or with ``gather`` at the whole batch. The target is
    ``t``.

    Source: Huang et al. 2022, *Knowledge distillation from a stronger teacher* (arXiv:2205.10536), its inter-class and
    intra-class relations, with the factor ``T^2`` of the authors' later code. In that code the weight of the loss is 2,
    and ``T`` is 4 on CIFAR, 1 on ImageNet.

    Args:
        temperature: ``T``, above 0.
        beta: weight of the relations between classes, at least 0.
        gamma: weight of the relations between samples, at least 0.
        standardize: whether to standardise each answer's logits first (Sun et al. 2024, arXiv:2403.01427).
        gather: whether to compare the samples of all workers.

    Raises:
        ValueError: an option is out of bounds.
    """

    def __init__(
        self,
        temperature: float = 1.0,
        beta: float = 1.0,
        gamma: float = 1.0,
        standardize: bool = False,
        gather: bool = False,
    ) -> None:
        super().__init__(temperature, standardize)
        self.beta = finite("beta", beta, at_least=0)
        self.gamma = finite("gamma", gamma, at_least=0)
        self.gather = gather

    def loss(self, student: Tensor, teacher: Tensor, batch: Batch) -> Tensor:
        p, q = (self.together(_rows(F.softmax(self.soften(logits), dim=1))) for logits in (teacher, student))
        between_classes = 1 - _correlation(p, q).mean()
        between_samples = 1 - _correlation(p.mT, q.mT).mean()
        return self.temperature**2 * (self.beta * between_classes + self.gamma * between_samples).clamp_min(0)


def _rows(answers: Tensor) -> Tensor:
    """Return ``[batch, class, ...]`` as ``[sample, class]``; each pixel of a dense answer is a sample."""
    return answers.movedim(1, -1).flatten(0, -2)


def _correlation(one: Tensor, other: Tensor) -> Tensor:
    """Return Pearson's correlation of each pair of rows, 0 where a row is constant."""
    one, other = (rows - rows.mean(dim=1, keepdim=True) for rows in (one, other))
    norms = torch.linalg.vector_norm(one, dim=1) * torch.linalg.vector_norm(other, dim=1)
    correlation: Tensor = (one * other).sum(dim=1) / (norms + EPSILON)
    return correlation
