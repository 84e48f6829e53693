"""What a way of aggregating needs beyond the losses of a batch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Scope = Literal["taps", "last", "all"]
"""Where gradients are looked at: ``taps``, each path where it acts, the deepest activation that it reads (which costs
next to nothing); ``last``, the parameters of the student's last stage; ``all``, all parameters of the student."""


@dataclass(frozen=True)
class Needs:
    """What the training has to provide.

    Attributes:
        gradients: where the gradients of task and paths are looked at, apart from each other.
        second_look: whether the losses of a batch are wanted once more, after the step that it led to.
        held_out: whether a batch is wanted that no training step sees.
    """

    gradients: frozenset[Scope] = frozenset()
    second_look: bool = False
    held_out: bool = False

    def __or__(self, other: Needs) -> Needs:
        """Return what both need."""
        return Needs(
            self.gradients | other.gradients, self.second_look or other.second_look, self.held_out or other.held_out
        )
