"""The contract of a task: supervised loss, logits and metrics."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

import torch
from torch import Tensor

from distill.batch import Batch


class Metrics(ABC):
    """Running metrics of one pass over a split; exact on any number of workers."""

    @abstractmethod
    def update(self, output: Any, batch: Batch, teacher: Tensor | None) -> None:
        """Take in one batch.

        Args:
            output: what the student's forward returned.
            batch: the samples.
            teacher: the teacher's logits for the same samples, where a teacher exists.
        """

    @abstractmethod
    def compute(self) -> dict[str, float]:
        """Return all metrics over every rank's samples; names without prefix, accuracies in percent."""


class Task(ABC):
    """What is to be learned: the supervised loss, the logits of an output, and how quality is measured."""

    @abstractmethod
    def loss(self, output: Any, batch: Batch) -> Tensor:
        """Return the scalar supervised loss (mean over the batch)."""

    @abstractmethod
    def logits(self, output: Any) -> Tensor:
        """Return the logits of what a model's forward returned."""

    @abstractmethod
    def metrics(self, num_classes: int, device: torch.device) -> Metrics:
        """Return fresh metrics."""
