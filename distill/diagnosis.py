"""Looking at gradients while a student trains: which path pulls where the labels pull, and how hard?"""

from __future__ import annotations

from dataclasses import dataclass

from distill.gradient_scope import Scope


@dataclass(frozen=True)
class Diagnosis:
    """How often each path's gradient is compared with the task's, and where.

    A look records, for every path, the cosine of its gradient with the task's and the length of both, without the
    weight that the aggregator gives it. It changes nothing in the training. With scope ``last`` a look costs a backward
    pass through the last stage for the task and for each path, and memory for as many gradients of its parameters;
    paths that act before that stage have no gradient there and a cosine of 0. With ``all`` these are whole backward
    passes, and gradients of the whole student. With ``taps`` each path is looked at where it acts: a backward pass a
    path, which ends there, one for the task, which ends at the earliest of these activations, and memory for its
    gradients in all of them at once, in float64.

    Args:
        every: optimiser steps between two looks, at least 1.
        scope: where; see :data:`~distill.gradient_scope.Scope`.

    Raises:
        ValueError: ``every`` or ``scope`` is out of bounds.
    """

    every: int = 50
    scope: Scope = "last"

    def __post_init__(self) -> None:
        if self.every < 1:
            raise ValueError(f"every must be a number of steps, at least 1, found {self.every!r}")
        if self.scope not in ("taps", "last", "all"):
            raise ValueError(f"scope must be one of taps, last, all, found {self.scope!r}")

    def is_due(self, step: int) -> bool:
        """Whether the step with this number, from 0, is looked at."""
        return step % self.every == 0
