"""One path alone beside the task."""

from __future__ import annotations

from typing import Unpack

import torch

from distill.aggregators.base import Aggregate, Aggregator, Common, Losses, weighted_sum
from distill.options import finite


class Single(Aggregator):
    """Adds exactly one path to the task with a constant weight.

    The sum to descend::

        total = L_task + weight * L

    Costs nothing: no further pass, no memory, no all-reduce.

    Source: the single-path configurations of Chennupati et al. 2021 (arXiv:2110.09674), whose weights are 1000 for
    attention transfer, 0.1 for soft targets, 10 for NST and 0.1 for logits.

    Args:
        weight: a finite number; 1 by default, since a good one depends on the size of the path's loss.

    Raises:
        ValueError: ``weight`` is not finite; at ``connect``: there is not exactly one path.
    """

    def __init__(self, weight: float = 1.0, **common: Unpack[Common]) -> None:
        super().__init__(**common)
        self.weight = finite("weight", weight)

    def allocate(self, num_keys: int) -> None:
        if num_keys != 1:
            found = f"{num_keys}: {', '.join(self.keys)}" if self.keys else "none"
            raise ValueError(f"Single takes exactly one path, found {found}; use Equal, Fixed, Adaptive or LogSum")

    def forward(self, losses: Losses) -> Aggregate:
        return weighted_sum(losses, torch.full_like(losses.paths, self.weight))
