"""What a way of aggregating needs beyond the losses of a batch."""

from __future__ import annotations

from dataclasses import dataclass

from distill.gradient_scope import Scope


@dataclass(frozen=True)
class Needs:
    """What the training has to provide.

    Attributes:
        gradients: where the gradients of task and paths are looked at, apart from each other.
        second_look: whether the losses of a batch are wanted once more, after the step that it led to.
    """

    gradients: frozenset[Scope] = frozenset()
    second_look: bool = False

    def __or__(self, other: Needs) -> Needs:
        """Return what both need."""
        return Needs(self.gradients | other.gradients, self.second_look or other.second_look)
