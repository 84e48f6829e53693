"""Modifiers as their tests see them: weights in, weights out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from distill.aggregators import Losses
from distill.aggregators.gradients import Gradients, SharedGradients
from distill.aggregators.modifiers import Bound, CosineGate, Modifier, Normalize, Ramp

EXAMPLES: dict[str, Callable[[], Modifier]] = {
    "Bound by a number": lambda: Bound(0.5),
    "Bound by growth": lambda: Bound(growth=1.5, over=2),
    "CosineGate at the taps": lambda: CosineGate(every=2, wait=1, smoothing=0.5, z=0.1, dense=0),
    "CosineGate in the last stage, smooth": lambda: CosineGate("last", every=1, wait=1, form="smooth"),
    "CosineGate everywhere, weighted": lambda: CosineGate("all", every=1, form="weighted"),
    "CosineGate that starts closed": lambda: CosineGate(every=1, wait=2, start="closed"),
    "Normalize": Normalize,
    "Normalize to a number": lambda: Normalize(0.25),
    "Ramp": lambda: Ramp(start=0.2, end=0.9),
    "Ramp along a cosine": lambda: Ramp(0.1, 2.0, shape="cosine"),
}
"""How to build every registered modifier, by a name that begins with its own."""


class Planted(Gradients):
    """Says of every path what a test wants it to say: cosines, of gradients of the given lengths."""

    def __init__(self, cosines: Sequence[float], length: float = 1.0) -> None:
        self._products = torch.tensor([[each * length, 1.0, length**2] for each in cosines], dtype=torch.float64)
        self._products = self._products.reshape(-1, 3)

    def against_task(self) -> Tensor:
        return self._products

    def in_parameters(self) -> SharedGradients:
        raise ValueError("planted gradients are in no parameters")


def connected(modifier: Modifier, num_keys: int) -> Modifier:
    """Connect to weights named `a`, `b`, ..."""
    modifier.connect("abcdefgh"[:num_keys])
    return modifier


def losses_at(progress: float, *cosines: float, length: float = 1.0) -> Losses:
    """Return losses of no importance, at some progress, with gradients of these cosines with the task's."""
    gradients = Planted(cosines, length)
    keys = tuple("abcdefgh"[: len(cosines)])
    scopes: Any = dict.fromkeys(("taps", "last", "all"), gradients)
    return Losses(torch.tensor(1.0), torch.ones(len(cosines)), keys, progress, scopes)


def reweigh(modifier: Modifier, *weights: float, progress: float = 0.0) -> list[float]:
    """Make one step with these weights, in float64; return what counts."""
    modifier.advance(progress)
    losses = losses_at(progress, *[0.0] * len(weights))
    return modifier.reweigh(torch.tensor(weights, dtype=torch.float64), losses).tolist()


def look(gate: Modifier, *cosines: float, length: float = 1.0) -> list[float]:
    """Make one step with weights of 1 and paths of these cosines; return what counts, which is the gates."""
    gate.advance(0.0)
    losses = losses_at(0.0, *cosines, length=length)
    return gate.reweigh(torch.ones(len(cosines), dtype=torch.float64), losses).tolist()
