"""All paths alike."""

from __future__ import annotations

from typing import Unpack

import torch

from distill.aggregators.base import Aggregate, Aggregator, Common, Losses, weighted_sum
from distill.options import finite


class Equal(Aggregator):
    """Adds all paths to the task with one constant weight.

    The sum to descend::

        total = L_task + alpha_distill * sum over paths of L_i

    Equal weights are not equal influence: losses of different paths differ by orders of magnitude. Without paths this
    is the task alone, so it also serves a student that is trained without a teacher. Costs nothing: no further pass, no
    memory, no all-reduce.

    Source: the equal-weight baseline of Chennupati et al. 2021 (arXiv:2110.09674).

    Args:
        alpha_distill: weight of all paths together, at least 0; 1 as in the paper.

    Raises:
        ValueError: ``alpha_distill`` is negative or not finite.
    """

    def __init__(self, alpha_distill: float = 1.0, **common: Unpack[Common]) -> None:
        super().__init__(**common)
        self.alpha_distill = finite("alpha_distill", alpha_distill, at_least=0)

    def forward(self, losses: Losses) -> Aggregate:
        return weighted_sum(losses, torch.full_like(losses.paths, self.alpha_distill))
