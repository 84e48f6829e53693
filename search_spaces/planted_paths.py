"""Paths planted to hurt: what an aggregator must survive. See harmful_path.yaml."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F

from distill.batch import Batch
from distill.paths import LogitPath


class WrongClassLogits(LogitPath):
    """Mean squared difference to the teacher's logits, moved on by one class: it cannot agree with the labels."""

    def loss(self, student: Tensor, teacher: Tensor, batch: Batch) -> Tensor:
        """Compare with ``teacher`` rolled by one class."""
        return F.mse_loss(student.float(), teacher.float().roll(1, dims=1))
