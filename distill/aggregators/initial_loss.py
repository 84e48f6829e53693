"""Each path in units of what its loss was at first."""

from __future__ import annotations

from typing import Unpack

import torch

from distill import distributed
from distill.aggregators.base import Aggregate, Aggregator, Common, Losses, weighted_sum
from distill.aggregators.first_losses import FirstLosses
from distill.options import finite, whole

EPSILON, EPSILON_OF_TASK = 1e-12, 1e-8
"""Floors far below any loss that a path of ours starts at."""


class InitialLoss(Aggregator):
    """Divides each loss by what it was at first, so that all paths start with the same say.

    With ``F_i`` the mean over ranks and the first ``over`` batches of the absolute loss (while these last: over those
    so far), ``F_task`` likewise::

        total    = L_task + alpha_distill * sum of L_i / max(F_i, floor)
        weight_i = alpha_distill / max(F_i, floor)             floor = max(epsilon, epsilon_of_task * F_task)

    No constant in front of a path counts. Weights stand still after the first batches: unlike
    under :class:`~distill.aggregators.log_sum.LogSum`, a path that is fitted counts less and less. A path that starts
    at 0 gets the weight ``alpha_distill / floor``, which is large: give such a path a weight by hand. A loss below 0
    counts by its size. Under gradient accumulation each micro-batch is a batch. Costs one small all-reduce a batch.

    Source: the static control of multi-task learning: the loss ratio ``L_i / L_i(0)`` of GradNorm (Chen et al. 2018,
    arXiv:1711.02257) as the objective itself. The mean over several batches and the floors are ours.

    Args:
        alpha_distill: weight of all paths together, at least 0.
        over: batches whose mean is the first loss, at least 1.
        epsilon: the least a first loss counts as, at least 1e-30, below which float32 ends.
        epsilon_of_task: the least a first loss counts as, in first losses of the task, at least 0.

    Raises:
        ValueError: an option is out of bounds.
    """

    def __init__(
        self,
        alpha_distill: float = 1.0,
        over: int = 10,
        epsilon: float = EPSILON,
        epsilon_of_task: float = EPSILON_OF_TASK,
        **common: Unpack[Common],
    ) -> None:
        super().__init__(**common)
        self.alpha_distill = finite("alpha_distill", alpha_distill, at_least=0)
        self.over = whole("over", over, at_least=1)
        self.epsilon = finite("epsilon", epsilon, at_least=1e-30)
        self.epsilon_of_task = finite("epsilon_of_task", epsilon_of_task, at_least=0)

    def allocate(self, num_keys: int) -> None:
        self.first = FirstLosses(num_keys, self.over, self.epsilon, self.epsilon_of_task)

    def forward(self, losses: Losses) -> Aggregate:
        means = distributed.mean(torch.cat([losses.paths, losses.task.reshape(1)]))
        return weighted_sum(losses, self.alpha_distill / self.first(means))
