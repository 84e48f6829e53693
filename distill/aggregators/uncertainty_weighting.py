"""Weights that are learned as the noise of each loss."""

from __future__ import annotations

from typing import Unpack

import torch

from distill.aggregators.base import Aggregate, Common, Losses
from distill.aggregators.learned_scale import LARGE_WEIGHT, Initial, LearnedScale
from distill.aggregators.with_task import weighed


class UncertaintyWeighting(LearnedScale):
    """Takes each loss for the error of a measurement, and learns how noisy that is: ``s_i``, its log variance.

    The likelihood of a Gaussian of variance ``exp(s_i)`` gives the sum to descend, over all paths ``i``::

        total = L_task + alpha_distill * sum of (exp(-s_i) * L_i + s_i) / 2
        weight_i = alpha_distill / 2 * exp(-s_i)

    With ``include_task`` the task has a noise ``s_0`` too: ``(exp(-s_0) * L_task + s_0) / 2`` stands for ``L_task``, as
    in the paper, where no loss is the one that matters. Beware of it: as the task is fitted its weight grows, up to
    ``max_weight``, and with it the student's effective learning rate.

    Without the task in it this is :class:`~distill.aggregators.adaptive.Adaptive` with half its ``alpha_distill``, with
    the same optimum ``s_i = log(L_i)``; all said there of bounds and starts holds here. Costs one
    number a loss, and with ``initial: log_loss`` one small all-reduce a step.

    Source: Kendall et al. 2018 (arXiv:1705.07115), equation 7 with ``s = log(sigma^2)`` for every loss; the paper
    doubles the weight of classification (equation 10), which ``include_task`` does not. Departures: no weight decay on
    the ``s_i``, and a bounded weight.

    Args:
        alpha_distill: weight of all paths together, at least 0.
        include_task: whether the task's weight is learned too.
        learning_rate: of the scalars, above 0; ``None`` for the optimiser's own.
        weight_decay: of the scalars, at least 0; ``None`` for the optimiser's own.
        max_weight: bound of every weight, above 0; ``None`` for none, as in the paper.
        initial: where every ``s_i`` starts; ``log_loss``: at the logarithm of its first loss above 0.

    Raises:
        ValueError: an option is out of bounds, or the first weight exceeds ``max_weight``; at ``connect``: a path
            can be negative, whose weight would grow without end.
    """

    def __init__(
        self,
        alpha_distill: float = 1.0,
        include_task: bool = False,
        learning_rate: float | None = None,
        weight_decay: float | None = 0.0,
        max_weight: float | None = LARGE_WEIGHT,
        initial: Initial = 0.0,
        **common: Unpack[Common],
    ) -> None:
        self.weighs_task = include_task
        super().__init__(alpha_distill, learning_rate, weight_decay, max_weight, initial, **common)

    def scales(self, num_keys: int) -> list[float]:
        return [0.5] * self.weighs_task + [self.alpha_distill / 2] * num_keys

    def forward(self, losses: Losses) -> Aggregate:
        values = weighed(losses, include_task=self.weighs_task)  # [scalar]
        s = self.scalars(values)
        weights = self._scales * torch.exp(-s)
        total = (weights * values).sum() + (self._scales * s).sum()
        if self.weighs_task:
            return Aggregate(total, weights[1:].detach(), weights[0].detach())
        return Aggregate(losses.task + total, weights.detach())
