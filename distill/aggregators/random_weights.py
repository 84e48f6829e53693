"""Weights that are drawn anew each step."""

from __future__ import annotations

from typing import Unpack

import torch
from torch import Tensor

from distill.aggregators.base import Aggregate, Aggregator, Common, Losses
from distill.aggregators.with_task import sum_of_weighed
from distill.counter_random import derive_seed
from distill.options import finite, whole


class RandomWeights(Aggregator):
    """Random loss weighting: draws all weights anew each step; the control that every learned weighting has to beat.

    With ``n`` losses and ``z`` standard normal, drawn each step::

        weight_i = alpha_distill * n * softmax(z)_i

    On the average over the steps each weight is ``alpha_distill``, so this is Equal with noise, without any knowledge
    of the paths. Draws follow from ``seed`` and the number of the step, alike on all ranks and after a restore. The
    batches of an accumulated step share theirs. Costs nothing.

    Source: Lin et al. 2022 (arXiv:2111.10603), RLW with the normal distribution, whose weights add up to 1; here they
    add up to ``n``, as Equal's do.

    Args:
        alpha_distill: mean weight of the paths, at least 0.
        seed: of the draws, a whole number of at least 0.
        include_task: whether the task is one of the ``n`` losses, as in the paper; its weight else is 1, and
            ``alpha_distill`` never multiplies it.

    Raises:
        ValueError: an option is out of bounds.
    """

    _draw: Tensor  # [loss]: standard normal

    def __init__(
        self, alpha_distill: float = 1.0, seed: int = 0, include_task: bool = False, **common: Unpack[Common]
    ) -> None:
        super().__init__(**common)
        self.alpha_distill = finite("alpha_distill", alpha_distill, at_least=0)
        self.seed = whole("seed", seed, at_least=0)
        self.weighs_task = include_task
        self._step = 0

    def allocate(self, num_keys: int) -> None:
        self.register_buffer("_draw", torch.zeros(num_keys + self.weighs_task, dtype=torch.float64))

    def advance(self, progress: float) -> None:
        super().advance(progress)
        generator = torch.Generator().manual_seed(derive_seed(self.seed, "random weights", self._step))
        self._draw.copy_(torch.randn(self._draw.shape, generator=generator, dtype=torch.float64))
        self._step += 1

    def forward(self, losses: Losses) -> Aggregate:
        weights = len(self._draw) * torch.softmax(self._draw, dim=0)
        return sum_of_weighed(losses, weights, alpha_distill=self.alpha_distill)

    def get_extra_state(self) -> Tensor:
        """Return how many steps there were, for checkpoints."""
        return torch.tensor(self._step)

    def set_extra_state(self, state: Tensor) -> None:
        """Put back what :meth:`get_extra_state` returned."""
        self._step = int(state)
