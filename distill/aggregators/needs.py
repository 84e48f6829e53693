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
        held_out: share of the training images that the student does not train on, from 0 to below 1.
        held_out_gradients: in which parameters the gradient of the task's loss on these is wanted, after the steps
            that ask for it (``Aggregator.wants_held_out``); ``taps`` are no parameters.

    Raises:
        ValueError: the share is out of bounds, or gradients are wanted of no samples, or at taps.
    """

    gradients: frozenset[Scope] = frozenset()
    second_look: bool = False
    held_out: float = 0.0
    held_out_gradients: frozenset[Scope] = frozenset()

    def __post_init__(self) -> None:
        if not 0 <= self.held_out < 1:
            raise ValueError(f"held_out must be a share from 0 to below 1, found {self.held_out!r}")
        if self.held_out_gradients and not self.held_out:
            raise ValueError("held_out_gradients need held-out samples: held_out must be above 0")
        if "taps" in self.held_out_gradients:
            raise ValueError("held_out_gradients must be in parameters, 'last' or 'all', found 'taps'")

    def __or__(self, other: Needs) -> Needs:
        """Return what both need; of held-out samples the larger share, which both learn from."""
        return Needs(
            self.gradients | other.gradients,
            self.second_look or other.second_look,
            max(self.held_out, other.held_out),
            self.held_out_gradients | other.held_out_gradients,
        )
