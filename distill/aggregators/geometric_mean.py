"""The paths' geometric mean."""

from __future__ import annotations

from typing import Unpack

import torch
from torch import Tensor

from distill import distributed
from distill.aggregators.base import Aggregate, Aggregator, Common, Losses
from distill.options import finite


class GeometricMean(Aggregator):
    """Descends the geometric mean of the losses, so that every path's relative progress counts alike.

    With ``n`` paths and ``M_i`` the mean over all ranks of ``L_i``, to which ``epsilon`` is added::

        G        = (product of M_i) ^ (1 / n)
        total    = L_task + alpha_distill * n * G
        weight_i = alpha_distill * G / M_i

    The factor ``n`` makes it :class:`~distill.aggregators.equal.Equal` where all losses are equal. Weights are those of
    :class:`~distill.aggregators.log_sum.LogSum` times ``G``: in the same relation to each other, but they fade together
    as the losses fall. With ``include_task`` the task is one of the factors, and the others have the exponent
    ``alpha_distill``::

        G           = (M_task * product of M_i ^ alpha_distill) ^ (1 / (1 + alpha_distill * n))
        total       = (1 + alpha_distill * n) * G
        weight_i    = alpha_distill * G / M_i                  weight of the task = G / M_task

    The weights are constants of the step and computed from the mean over the ranks, so that all ranks agree and the
    averaged gradient is that of the whole batch. A loss of 0 has the weight ``alpha_distill * G / epsilon``, and ``G``
    is then near 0: a path that is fitted perfectly silences the others. Costs one small all-reduce a batch.

    Source: the geometric loss strategy (GLS) of Chennupati et al. 2019, *MultiNet++* (arXiv:1904.08492), where
    every loss is a task's: that is ``include_task`` with ``alpha_distill = 1``, without the factor ``1 + n``.
    ``alpha_distill`` and ``epsilon`` are ours.

    Args:
        alpha_distill: weight of all paths together, at least 0.
        include_task: whether the task's loss is one of the factors, instead of being added.
        epsilon: at least 1e-30, below which float32 ends; the default is far below any loss that a path of ours takes
            on during training.

    Raises:
        ValueError: an option is out of bounds; at ``connect``: a path can be negative, which has no geometric mean.
    """

    accepts_negative = False
    separate = False

    def __init__(
        self,
        alpha_distill: float = 1.0,
        include_task: bool = False,
        epsilon: float = 1e-8,
        **common: Unpack[Common],
    ) -> None:
        super().__init__(**common)
        self.alpha_distill = finite("alpha_distill", alpha_distill, at_least=0)
        self.weighs_task = include_task
        self.epsilon = finite("epsilon", epsilon, at_least=1e-30)

    def forward(self, losses: Losses) -> Aggregate:
        means = distributed.mean(torch.cat([losses.paths, losses.task.reshape(1)])).clamp_min(0) + self.epsilon
        paths, task = means[:-1], means[-1]
        if not self.weighs_task:
            geometric = _geometric_mean(paths, torch.ones_like(paths))
            weights = self.alpha_distill * geometric / paths
            value = self.alpha_distill * len(paths) * geometric
            descended = (weights * losses.paths).sum()
            return Aggregate(losses.task + value + (descended - descended.detach()), weights)
        exponents = torch.ones_like(means)
        exponents[:-1] = self.alpha_distill
        geometric = _geometric_mean(means, exponents)
        weights = self.alpha_distill * geometric / paths
        task_weight = geometric / task
        descended = (weights * losses.paths).sum() + task_weight * losses.task
        return Aggregate(exponents.sum() * geometric + (descended - descended.detach()), weights, task_weight)


def _geometric_mean(values: Tensor, exponents: Tensor) -> Tensor:
    """Return the weighted geometric mean, of none: 1."""
    return ((exponents * values.log()).sum() / exponents.sum().clamp_min(1)).exp()
