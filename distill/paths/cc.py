"""Correlation congruence: how are the images of a batch correlated in a space that is learned?"""

from __future__ import annotations

import math
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from distill.options import finite, whole
from distill.paths.base import TapChoice, key
from distill.paths.batch_dependent import BatchDependentFeatures
from distill.paths.pooled import PooledPath, pooled
from distill.taps import Probe


class CC(BatchDependentFeatures, PooledPath):
    """Matches how the images of a batch are correlated, by a kernel between learned embeddings of both models.

    With the pooled features ``x`` of either model, ``[batch, channel]``, and a linear map with bias for each model::

        z = W x + b, divided by its length                                       # [batch, num_features]
        C_ij = exp(-2 gamma) * sum over p from 0 to order of (2 gamma)^p / p! * (z_i . z_j)^p
        loss = mean over all pairs of images of (C_ij of the student - C_ij of the teacher)^2

    ``C`` is the Taylor expansion of ``exp(-gamma |z_i - z_j|^2)``, the Gaussian kernel of vectors of unit length. The
    widths and sizes of student and teacher may differ. The loss depends on the batch: each worker looks at its own
    share, or with ``gather`` at the whole batch. A batch of one costs nothing. The target is the teacher's ``x``,
    ``[batch, channel]``, as its embedding changes while it learns.

    Both embeddings are learned, and nothing in the loss keeps them from mapping all images to one point, where every
    ``C_ij`` agrees and the student learns nothing. Published code has no guard against it: torchdistill and
    RepDistiller train the teacher's embedding with the student's likewise, and the Knowledge-Distillation-Zoo has no
    embeddings at all. A loss that is soon close to 0 is therefore no sign of success.

    Source: Peng et al. 2019, *Correlation congruence for knowledge distillation* (ICCV, arXiv:1904.01802), section 3,
    with the Gaussian kernel, ``order`` 2 and ``gamma`` 0.4 of their experiments; 128 features as in the code of
    others. Where these differ: torchdistill takes the norm of the difference instead of its square, and vectors of any
    length; the ``Correlation`` of RepDistiller, by its own account after code of the authors, is another loss,
    between neighbours in the batch. Departure: this is
    the correlation alone; the paper adds to it what SoftTarget computes for each image.

    Args:
        num_features: width of the embeddings, at least 1.
        gamma: how fast the correlation falls with the distance, above 0.
        order: highest power of the expansion, at least 1.
        taps: ``auto`` (the deepest features), or a list of ``{student: NAME, teacher: NAME}``.
        gather: whether to compare the images of all workers.

    Raises:
        ValueError: an option is out of bounds.
    """

    student_embeddings: nn.ModuleDict
    teacher_embeddings: nn.ModuleDict

    def __init__(
        self,
        num_features: int = 128,
        gamma: float = 0.4,
        order: int = 2,
        taps: TapChoice = "auto",
        gather: bool = False,
    ) -> None:
        super().__init__(taps, gather)
        self.num_features = whole("num_features", num_features, at_least=1)
        self.gamma = finite("gamma", gamma, above=0)
        self.order = whole("order", order, at_least=1)

    def build(self, student: Probe, teacher: Probe) -> None:
        """Build both embeddings of every pair."""
        self.student_embeddings, self.teacher_embeddings = nn.ModuleDict(), nn.ModuleDict()
        for pair in self.pairs:
            widths = student[pair.student].channels, teacher[pair.teacher].channels
            embeddings = self.student_embeddings, self.teacher_embeddings
            for width, side in zip(widths, embeddings, strict=True):
                side[key(pair.layer)] = nn.Linear(width, self.num_features)

    def layer_loss(self, layer: str, student: Tensor, target: Tensor) -> Tensor:
        own = _embed(self.student_embeddings, layer, pooled(student))
        other = _embed(self.teacher_embeddings, layer, target)
        return F.mse_loss(self._correlate(self.together(own)), self._correlate(self.together(other)))

    def _correlate(self, rows: Tensor) -> Tensor:
        """Return ``C``, ``[sample, sample]``, of rows of unit length."""
        cosines = rows @ rows.mT
        correlation = torch.zeros_like(cosines)
        for power in range(self.order, -1, -1):
            correlation = correlation * cosines + (2 * self.gamma) ** power / math.factorial(power)
        return math.exp(-2 * self.gamma) * correlation


def _embed(embeddings: nn.ModuleDict, layer: str, rows: Tensor) -> Tensor:
    return F.normalize(cast(Tensor, embeddings[key(layer)](rows)), dim=1)
