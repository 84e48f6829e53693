"""A limit to what a weight may become."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from distill.aggregators.modifiers.base import Modifier
from distill.options import finite, whole

if TYPE_CHECKING:
    from distill.aggregators.base import Losses


class Bound(Modifier):
    """Keeps every weight below a number, below a multiple of what it was at first, or both.

    With ``v_i`` the mean of the weight over the first ``over`` batches in which it was not zero (while these last:
    over those so far)::

        w_i' = min(w_i, max_weight, growth * v_i)

    Weights that follow the inverse of a loss (Adaptive, LogSum) grow without end where a path is easily fitted, and the
    student collapses onto it; with a bound the path ends as one of constant weight. Of a negative weight the size is
    bounded, and the sign stays. A weight that is zero at first, as that of a path whose gate is closed, has no first
    value yet, and no bound to its growth. A Ramp that warms up belongs behind this modifier: in front of it, the first
    values would be those of the ramp's start. Costs two numbers a weight: no further pass, no all-reduce.

    Source: ours.

    Args:
        max_weight: above 0; ``None`` for none.
        growth: how many times its first value a weight may become, at least 1; ``None`` for any.
        over: batches whose mean is the first value, at least 1.

    Raises:
        ValueError: an option is out of bounds, or there is no bound at all.
    """

    _first: Tensor  # [key]: mean size of the weight so far
    _seen: Tensor  # [key]: batches in it

    def __init__(self, max_weight: float | None = None, growth: float | None = None, over: int = 10) -> None:
        super().__init__()
        self.max_weight = None if max_weight is None else finite("max_weight", max_weight, above=0)
        self.growth = None if growth is None else finite("growth", growth, at_least=1)
        self.over = whole("over", over, at_least=1)
        if self.max_weight is None and self.growth is None:
            raise ValueError("Bound needs max_weight or growth, found neither")

    def allocate(self, num_keys: int) -> None:
        self.register_buffer("_first", torch.zeros(num_keys))
        self.register_buffer("_seen", torch.zeros(num_keys))

    def reweigh(self, weights: Tensor, losses: Losses) -> Tensor:
        if self.max_weight is not None:
            weights = weights.clamp(-self.max_weight, self.max_weight)
        if self.growth is None:
            return weights
        if self.training:
            self._look(weights)
        limits = self.growth * self._first.to(weights)
        return torch.where(self._seen > 0, weights.clamp(-limits, limits), weights)

    @torch.no_grad()
    def _look(self, weights: Tensor) -> None:
        sizes = weights.abs().to(self._first)
        counts = (self._seen < self.over) & (sizes > 0) & sizes.isfinite()
        mean = self._first + (sizes - self._first) / (self._seen + 1)
        self._first.copy_(torch.where(counts, mean, self._first))
        self._seen += counts
