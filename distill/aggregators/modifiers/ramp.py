"""Weights that follow the training's progress."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor

from distill.aggregators.modifiers.base import Modifier
from distill.options import finite

if TYPE_CHECKING:
    from distill.aggregators.base import Losses


class Ramp(Modifier):
    """Multiplies all weights by a factor that goes from one number to another over a part of the training.

    With ``x`` the share of the way from ``start`` to ``end``, between 0 and 1::

        factor = first + (last - first) * shape(x)          linear: x          cosine: (1 - cos(pi x)) / 2

    ``first: 0, last: 1, end: 0.1`` is a warm-up of all paths, ``first: 1, last: 0`` lets the labels have the last word.
    One path alone is scheduled by its own ``schedule``. Costs nothing: no further pass, no memory, no all-reduce.

    Source: ours; common practice.

    Args:
        first: the factor up to ``start``, at least 0.
        last: the factor from ``end`` on, at least 0.
        start: share of the training, from 0 to below ``end``.
        end: share of the training, at most 1.
        shape: ``linear`` or ``cosine``.

    Raises:
        ValueError: an option is out of bounds.
    """

    def __init__(
        self,
        first: float = 1.0,
        last: float = 0.0,
        start: float = 0.0,
        end: float = 1.0,
        shape: Literal["linear", "cosine"] = "linear",
    ) -> None:
        super().__init__()
        self.first = finite("first", first, at_least=0)
        self.last = finite("last", last, at_least=0)
        self.start = finite("start", start, at_least=0)
        self.end = finite("end", end, above=self.start)
        self.shape = shape
        if self.end > 1:
            raise ValueError(f"end must be a share of the training, at most 1, found {end!r}")
        if shape not in ("linear", "cosine"):
            raise ValueError(f"shape must be 'linear' or 'cosine', found {shape!r}")

    def reweigh(self, weights: Tensor, losses: Losses) -> Tensor:
        done = torch.as_tensor(losses.progress, device=weights.device)
        share = ((done - self.start) / (self.end - self.start)).clamp(0, 1)
        if self.shape == "cosine":
            share = (1 - torch.cos(math.pi * share)) / 2
        return weights * (self.first + (self.last - self.first) * share).to(weights)
