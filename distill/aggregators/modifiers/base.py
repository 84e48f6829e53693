"""The contract of a modifier: what changes an aggregator's weights before they count."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar

from torch import Tensor, nn

from distill.aggregators.needs import Needs

if TYPE_CHECKING:
    from distill.aggregators.base import Losses


class Modifier(nn.Module, ABC):
    """Changes the weights that an aggregator gives, whichever aggregator that is.

    What the aggregator learns from stays as it was: a modifier scales what reaches the student, not the losses that the
    aggregator sees, so that one that adapts weights does not work against it. State belongs in buffers, and must come
    out alike on every rank.
    """

    separate: ClassVar[bool] = True
    """Whether what becomes of a weight depends on no other one."""
    compiles: ClassVar[bool] = True
    """Whether ``torch.compile`` can make it part of one graph; not where it takes gradients on the way."""

    every: int = 1
    """Steps from one look at gradients to the next; an option may decide it."""
    dense: int = 0
    """Steps at the start that are all looked at; an option may decide it."""
    keys: tuple[str, ...] = ()

    @property
    def needs(self) -> Needs:
        """What the training has to provide; most modifiers need losses and no more."""
        return Needs()

    def connect(self, keys: Sequence[str]) -> None:
        """Learn what has a weight, and allocate state for it."""
        self.keys = tuple(keys)
        self.allocate(len(self.keys))

    def allocate(self, num_keys: int) -> None:
        """Create buffers for ``num_keys`` weights; some modifiers need none."""

    def advance(self, progress: float) -> None:
        """Hear before a step how far the training is, from 0 to 1; not part of what may be compiled."""

    @abstractmethod
    def reweigh(self, weights: Tensor, losses: Losses) -> Tensor:
        """Return the weights ``[key]`` that shall count, of those that the aggregator gives; detached, as these are."""
