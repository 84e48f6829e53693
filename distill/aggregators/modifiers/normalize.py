"""Weights of a constant sum."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import Tensor

from distill.aggregators.modifiers.base import Modifier
from distill.options import finite

if TYPE_CHECKING:
    from distill.aggregators.base import Losses


class Normalize(Modifier):
    """Scales all weights alike, so that their sum stays what it shall be and only their relations move.

    With ``n`` weights::

        w_i' = w_i * total / sum of |w|

    Weights that are all zero stay so. The sizes are summed, not the weights: those of either sign can cancel, and would
    be scaled without end. Behind a gate, what a closed one gives up goes to the paths whose gates are open; in front of
    it, it is lost. Costs nothing: no further pass, no memory, no all-reduce.

    Source: the normalisation of weights in GradNorm (Chen et al. 2018, arXiv:1711.02257) and DWA (Liu et al. 2019,
    arXiv:1803.10704), whose sum is the number of losses.

    Args:
        total: the sum, above 0; ``None``: the number of weights.

    Raises:
        ValueError: ``total`` is out of bounds.
    """

    separate = False

    def __init__(self, total: float | None = None) -> None:
        super().__init__()
        self.total = None if total is None else finite("total", total, above=0)

    def reweigh(self, weights: Tensor, losses: Losses) -> Tensor:
        total = len(self.keys) if self.total is None else self.total
        summed = weights.abs().sum()
        # Divided first: total / summed is infinite where the weights are as small as numbers get.
        return weights / summed.masked_fill(summed == 0, 1.0) * total
