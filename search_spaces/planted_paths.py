"""Paths planted to hurt: what an aggregator must survive. See harmful_path.yaml."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F

from distill.batch import Batch
from distill.paths import LogitPath
from distill.paths.batch_dependent import BatchDependentFeatures
from distill.paths.pooled import PooledPath, pooled


class WrongClassLogits(LogitPath):
    """Mean squared difference to the teacher's logits, moved on by one class: it cannot agree with the labels."""

    def loss(self, student: Tensor, teacher: Tensor, batch: Batch) -> Tensor:
        """Compare with ``teacher`` rolled by one class."""
        return F.mse_loss(student.float(), teacher.float().roll(1, dims=1))


class AlikeFeatures(BatchDependentFeatures, PooledPath):
    """Makes the last features of all samples alike: easily fitted, whatever the teacher says, and of no use.

    The mean over batch and channels of the squared difference of a sample's pooled features from the batch's mean.
    """

    def layer_loss(self, layer: str, student: Tensor, target: Tensor) -> Tensor:
        """Return the variance of the student's pooled features; the teacher's are not looked at."""
        features = self.together(pooled(student))
        return (features - features.mean(dim=0)).square().mean()
