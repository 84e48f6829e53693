"""Weights set by hand."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Unpack

import torch
from torch import Tensor

from distill.aggregators.base import Aggregate, Aggregator, Common, Losses, weighted_sum
from distill.aggregators.names import check_names
from distill.options import finite


class Fixed(Aggregator):
    """Adds each path to the task with the constant weight given for its name.

    The sum to descend::

        total = L_task + sum over paths of w_i * L_i

    Costs nothing: no further pass, one number a path, no all-reduce.

    Source: the hand-tuned baseline of Chennupati et al. 2021 (arXiv:2110.09674): attention transfer 1000, soft
    targets 0.1.

    Args:
        weights: a finite number for each path, by the path's name in the experiment.

    Raises:
        ValueError: a weight is not finite; at ``connect``: a path has no weight, or a weight no path.
    """

    values: Tensor

    def __init__(self, weights: Mapping[str, float], **common: Unpack[Common]) -> None:
        super().__init__(**common)
        self.weights = {name: finite(f"weights.{name}", weight) for name, weight in weights.items()}

    def allocate(self, num_keys: int) -> None:
        check_names("weights", "weight", self.weights, self.keys, kind=self.key_kind)
        # Not persistent: an option, not something learned.
        self.register_buffer("values", torch.tensor([self.weights[key] for key in self.keys]), persistent=False)

    def forward(self, losses: Losses) -> Aggregate:
        return weighted_sum(losses, self.values)
