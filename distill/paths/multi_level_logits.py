"""Multi-level logits: agreement on samples, on the likeness of samples, and on the likeness of classes."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from distill.batch import Batch
from distill.options import finite
from distill.paths.base import LogitPath
from distill.paths.batch_dependent import BatchDependent
from distill.paths.softened import mean_divergence, standardized


class MultiLevelLogits(BatchDependent, LogitPath):
    """Matches answers at three levels and several temperatures.

    With ``p = softmax(t / T)`` and ``q = softmax(s / T)``, ``[batch, class]``, ``B`` samples and ``C`` classes::

        sample = T^2 * mean over batch of sum over classes of p * log(p / q)
        batch = || q q' - p p' ||^2 / B               # [batch, batch]: which samples are alike
        class = || q' q - p' p ||^2 / C               # [class, class]: which classes are alike
        loss = sum over temperatures of (sample + batch + class)

    The second and third term depend on the batch: each worker looks at its own share, or with ``gather`` at the whole
    batch. The target is ``t``. Models with answers at many places are refused: the likeness of all pixels of a batch
    would be a matrix of billions.

    The class term grows with ``(B / C)^2``: where a student answers 10 classes by chance in batches of 64, the loss is
    some 60 to 100, and at the usual learning rates it may never find out. With few classes lower the weight.

    Source: Jin, Wang and Lin 2023, *Multi-level logit distillation* (CVPR), with the temperatures of their code for
    CIFAR (1, 2, 3, 5 and 6 on ImageNet). Departures: one view of each image, while their code has a weakly and a
    strongly augmented one, of which the relations use the weak one alone; and all three levels count alike, as in the
    paper, while in their code those of single samples count three times as much as the others (its masks multiply means
    and so halve them, whatever the teacher is sure of). Where logits are standardised that holds for all levels; Sun et
    al. standardise for the single samples alone. Their weight is 0.9 beside 0.1 for the labels with 100 classes, 0.5
    beside 0.5 on ImageNet, at half the usual learning rate.

    Args:
        temperatures: all above 0.
        standardize: whether to standardise each sample's logits first (Sun et al. 2024, arXiv:2403.01427).
        gather: whether to compare the samples of all workers.

    Raises:
        ValueError: no temperature, or one is not a finite number above 0.
    """

    takes_places = False

    def __init__(
        self,
        temperatures: Sequence[float] = (2.0, 3.0, 4.0, 5.0, 6.0),
        standardize: bool = False,
        gather: bool = False,
    ) -> None:
        super().__init__()
        self.temperatures = tuple(finite("temperatures", each, above=0) for each in temperatures)
        if not self.temperatures:
            raise ValueError("temperatures must hold at least one number, found none")
        self.standardize = standardize
        self.gather = gather

    def loss(self, student: Tensor, teacher: Tensor, batch: Batch) -> Tensor:
        if self.standardize:
            student, teacher = standardized(student), standardized(teacher)
        student, teacher = self.together(student), self.together(teacher)
        return torch.stack([_levels(student / each, teacher / each, each) for each in self.temperatures]).sum()


def _levels(student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    log_q, log_p = F.log_softmax(student, dim=1), F.log_softmax(teacher, dim=1)
    q, p = log_q.exp(), log_p.exp()
    sample = temperature**2 * mean_divergence(log_p, log_q)
    batch = (q @ q.mT - p @ p.mT).square().sum() / len(q)
    classes = (q.mT @ q - p.mT @ p).square().sum() / q.shape[1]
    return sample + batch + classes
