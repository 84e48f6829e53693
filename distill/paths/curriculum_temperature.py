"""Curriculum temperature: soft targets that get harder on their own."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from distill.batch import Batch
from distill.options import finite
from distill.paths.base import LogitPath
from distill.paths.softened import mean_divergence, standardized


class CurriculumTemperature(LogitPath):
    """Matches soft targets at a temperature that is learned against the student: it rises along the loss.

    The temperature is ``T = low + span * sigmoid(theta)`` with one learned number ``theta``, and the loss is
    SoftTarget's at that ``T``. Its gradient in ``theta`` is reversed and scaled by ``lambda``, which grows from 0 to 1
    along half a cosine over the first share ``ramp`` of the training: the task starts easy and gets hard::

        loss = T^2 * mean over batch and places of sum over classes of p * log(p / q)
        d theta = -lambda * (d loss / d theta)

    The target is the teacher's logits.

    Source: Li et al. 2023, *Curriculum temperature for knowledge distillation* (arXiv:2211.16231), with one temperature
    for all samples (their "Global-T"); ``theta`` starts at 1 and ``ramp`` is 10 of 240 epochs as in their code. It
    moves ``lambda`` once an epoch, this once a step. The first ``T`` is 15.6; their weight is 0.9 beside 0.1 for the
    labels on CIFAR, 1 beside 1 on ImageNet.

    Args:
        low: the lowest temperature, above 0.
        span: how far it can rise, above 0.
        ramp: share of the training until the gradient of ``theta`` counts in full, from 0 to 1.
        standardize: whether to standardise each answer's logits first (Sun et al. 2024, arXiv:2403.01427).

    Raises:
        ValueError: an option is out of bounds.
    """

    def __init__(self, low: float = 1.0, span: float = 20.0, ramp: float = 10 / 240, standardize: bool = False) -> None:
        super().__init__()
        self.low = finite("low", low, above=0)
        self.span = finite("span", span, above=0)
        self.ramp = finite("ramp", ramp, at_least=0)
        if self.ramp > 1:
            raise ValueError(f"ramp must be a share of the training from 0 to 1, found {ramp!r}")
        self.standardize = standardize
        self.theta = nn.Parameter(torch.ones(()))

    @property
    def temperature(self) -> Tensor:
        """The present temperature, scalar."""
        return self.low + self.span * torch.sigmoid(self.theta)

    def loss(self, student: Tensor, teacher: Tensor, batch: Batch) -> Tensor:
        if self.standardize:
            student, teacher = standardized(student), standardized(teacher)
        strength = self._strength(batch.progress)
        # The value of theta, with the gradient of -strength * theta.
        reversed_theta = (1 + strength) * self.theta.detach() - strength * self.theta
        temperature = self.low + self.span * torch.sigmoid(reversed_theta)
        log_q = F.log_softmax(student / temperature, dim=1)
        log_p = F.log_softmax(teacher / temperature, dim=1)
        return temperature**2 * mean_divergence(log_p, log_q)

    def _strength(self, progress: Tensor | float) -> Tensor:
        """Return ``lambda``, how much of the reversed gradient counts, from 0 to 1."""
        done = torch.as_tensor(progress, device=self.theta.device)
        share = (done / self.ramp).clamp(max=1) if self.ramp else torch.ones_like(done)
        return (1 - torch.cos(math.pi * share)) / 2
