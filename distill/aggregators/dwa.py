"""Weights by how slowly each loss falls from epoch to epoch."""

from __future__ import annotations

from typing import Unpack

import torch
from torch import Tensor

from distill import distributed
from distill.aggregators.base import Aggregate, Aggregator, Common, Losses
from distill.aggregators.with_task import sum_of_weighed, weighed
from distill.options import finite


class DWA(Aggregator):
    """Dynamic weight average: gives more to the losses that fell less over the last two epochs.

    With ``n`` losses, and ``mean_i(t)`` the mean of ``L_i`` over the batches of epoch ``t`` and all ranks::

        r_i = mean_i(t - 1) / mean_i(t - 2)
        weight_i = alpha_distill * n * softmax(r / temperature)_i

    In the first two epochs all weights are ``alpha_distill``. The weights follow ratios alone, so a constant in front
    of a loss stays there: what is loud stays loud. As ratios are close to 1 after a few epochs, so are weights, and no
    two differ by more than a factor ``exp(1 / temperature)`` as long as no loss rises; in short trainings there is
    little but the first two epochs.

    Batches in which a loss is exactly 0, as that of a path that waits for its schedule, are not part of its mean. A
    mean of 0 or below has no ratio, and counts as unchanged: ``r_i = 1``. Weights lie between 0 and
    ``alpha_distill * n`` whatever the losses do. Costs one small all-reduce a step.

    Source: Liu et al. 2019 (arXiv:1803.10704), section on dynamic weight average.

    Args:
        alpha_distill: mean weight of the paths, at least 0.
        temperature: above 0; 2 as in the paper. A larger one makes the weights more alike.
        include_task: whether the task is one of the ``n`` losses, as in the paper; its weight else is 1, and
            ``alpha_distill`` never multiplies it.

    Raises:
        ValueError: an option is out of bounds.
    """

    separate = False
    _sum: Tensor  # [loss]: of this epoch's batches
    _count: Tensor  # [loss]: batches in it
    _newer: Tensor  # [loss]: mean of the last epoch
    _older: Tensor  # [loss]: mean of the one before; 0, of which there is no ratio, as long as there is none

    def __init__(
        self,
        alpha_distill: float = 1.0,
        temperature: float = 2.0,
        include_task: bool = False,
        **common: Unpack[Common],
    ) -> None:
        super().__init__(**common)
        self.alpha_distill = finite("alpha_distill", alpha_distill, at_least=0)
        self.temperature = finite("temperature", temperature, above=0)
        self.weighs_task = include_task

    def allocate(self, num_keys: int) -> None:
        for name in ("_sum", "_count", "_newer", "_older"):
            self.register_buffer(name, torch.zeros(num_keys + self.weighs_task, dtype=torch.float64))

    def forward(self, losses: Losses) -> Aggregate:
        if self.training:
            self._add(weighed(losses, include_task=self.weighs_task))
        return sum_of_weighed(losses, self._weights(), alpha_distill=self.alpha_distill)

    @torch.no_grad()
    def after_epoch(self) -> None:
        """Take the means of the epoch that ended, from which the next one's weights follow."""
        self._older.copy_(self._newer)
        self._newer.copy_(self._sum / self._count.clamp_min(1))
        self._sum.zero_()
        self._count.zero_()

    @torch.no_grad()
    def _add(self, values: Tensor) -> None:
        mean = distributed.mean(values).to(self._sum)
        self._sum.add_(mean)
        self._count.add_(mean != 0)

    def _weights(self) -> Tensor:
        """Return the weights ``[loss]``, without alpha_distill."""
        has_ratio = (self._older > 0) & (self._newer > 0)
        ratio = torch.where(has_ratio, self._newer / self._older.masked_fill(~has_ratio, 1.0), 1.0)
        ratio = ratio.clamp(max=torch.finfo(torch.float32).max)
        return len(ratio) * torch.softmax(ratio / self.temperature, dim=0)
