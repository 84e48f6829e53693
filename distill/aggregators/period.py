"""Which steps an aggregator looks at."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class Period(nn.Module):
    """Counts optimiser steps, and tells those that are looked at: the first, and every so many from there.

    The count is part of the checkpoints of the module that owns this.

    Args:
        every: steps from one look to the next, at least 1.
    """

    def __init__(self, every: int) -> None:
        super().__init__()
        self.every = every
        self._steps = 0

    @property
    def is_due(self) -> bool:
        """Whether the step that comes next is looked at."""
        return self._steps % self.every == 0

    def advance(self) -> None:
        """Count a step."""
        self._steps += 1

    def get_extra_state(self) -> Tensor:
        """Return how many steps there were, for checkpoints."""
        return torch.tensor(self._steps)

    def set_extra_state(self, state: Tensor) -> None:
        """Put back what :meth:`get_extra_state` returned."""
        self._steps = int(state)
