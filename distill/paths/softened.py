"""What the paths between softened answers share: temperature, and logits brought to one scale."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from distill.options import finite
from distill.paths.base import LogitPath
from distill.taps import Probe, TapPair

EPSILON = 1e-7
"""Added to the standard deviation, as in the authors' code."""


class SoftenedPath(LogitPath):
    """A path that divides the logits by a temperature, and before that may standardise them.

    Standardised logits of an answer have mean 0 and standard deviation 1 over the classes, in both models: the student
    need not match the teacher's scale and shift, only the relations between classes. Source: Sun et al. 2024, *Logit
    standardization in knowledge distillation* (arXiv:2403.01427), with the standard deviation of their code, which
    divides by the number of classes less one.

    Args:
        temperature: ``T``, above 0.
        standardize: whether to standardise each answer's logits first.

    Raises:
        ValueError: ``temperature`` is not a finite number above 0.
    """

    def __init__(self, temperature: float = 4.0, standardize: bool = False) -> None:
        super().__init__()
        self.temperature = finite("temperature", temperature, above=0)
        self.standardize = standardize

    def choose_pairs(self, student: Probe, teacher: Probe) -> tuple[TapPair, ...]:
        """Pair the outputs.

        Raises:
            ValueError: as :meth:`LogitPath.choose_pairs`, or logits shall be standardised whose shift counts.
        """
        pairs = super().choose_pairs(student, teacher)
        if self.standardize and self.independent:
            raise ValueError(
                "standardize takes away the shift of the logits, which says how likely classes are that each have a "
                "probability of their own (sigmoid), as here; leave it out"
            )
        return pairs

    def soften(self, logits: Tensor) -> Tensor:
        """Return ``logits / T``, of logits ``[batch, class, ...]`` that are standardised where the option says so."""
        return (standardized(logits) if self.standardize else logits) / self.temperature


def standardized(logits: Tensor) -> Tensor:
    """Bring the logits ``[batch, class, ...]`` of each answer to mean 0 and standard deviation 1."""
    centred = logits - logits.mean(dim=1, keepdim=True)
    # The norm has a finite gradient where all logits are equal; the standard deviation's is not a number there.
    deviation: Tensor = torch.linalg.vector_norm(centred, dim=1, keepdim=True) / math.sqrt(max(logits.shape[1] - 1, 1))
    return centred / (deviation + EPSILON)


def divergence(teacher: Tensor, student: Tensor) -> Tensor:
    """Return the Kullback-Leibler divergence of the student's answers from the teacher's, ``[batch, ...]``.

    One that comes out below zero by rounding counts as zero.

    Args:
        teacher: log-probabilities ``[batch, class, ...]``.
        student: likewise.
    """
    return _parts(teacher, student).sum(dim=1).clamp_min(0)


def mean_divergence(teacher: Tensor, student: Tensor) -> Tensor:
    """Return the mean of the divergences of :func:`divergence` over samples and whatever follows the classes; scalar.

    A mean that comes out below zero by rounding counts as zero.
    """
    count = teacher.numel() // teacher.shape[1]
    return torch.relu(_parts(teacher, student).sum() / count)


def mean_binary_divergence(teacher: Tensor, student: Tensor) -> Tensor:
    """Return the mean over samples and places of the sum over classes of the divergences between yes and no; scalar.

    Each class has a probability of its own, the sigmoid of its logit. A mean that comes out below zero by rounding
    counts as zero.

    Args:
        teacher: logits ``[batch, class, ...]``.
        student: likewise.
    """
    count = teacher.numel() // teacher.shape[1]
    yes = _parts(F.logsigmoid(teacher), F.logsigmoid(student))
    no = _parts(F.logsigmoid(-teacher), F.logsigmoid(-student))
    return torch.relu((yes + no).sum() / count)


def _parts(teacher: Tensor, student: Tensor) -> Tensor:
    return teacher.exp() * (teacher - student)  # [batch, class, ...]
