"""When a path takes part in the training."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Schedule:
    """The part of the training in which a path moves the student, in shares of the training from 0 to 1.

    It scales the gradient that the path sends, never the value of its loss: an aggregator that adapts weights to
    losses would otherwise undo a warm-up, and take a path that waits for one that is perfect.

    Args:
        start: before this the path sends no gradient.
        warm_up: how long its gradient then takes to rise linearly from nothing to all of it.
        end: from here on it sends none.

    Raises:
        ValueError: they are not ``0 <= start < end <= 1`` and ``0 <= warm_up <= 1``.
    """

    start: float = 0.0
    warm_up: float = 0.0
    end: float = 1.0

    def __post_init__(self) -> None:
        if not 0 <= self.start < 1:
            raise ValueError(f"start must be a share of the training, at least 0 and below 1, found {self.start!r}")
        if not 0 <= self.warm_up <= 1:
            raise ValueError(f"warm_up must be a share of the training from 0 to 1, found {self.warm_up!r}")
        if not self.start < self.end <= 1:
            raise ValueError(f"end must lie above start ({self.start:g}) and be 1 at most, found {self.end!r}")

    def factor(self, progress: Tensor | float) -> Tensor:
        """Return by how much the path's gradient counts at this share of the training, from 0 to 1; a scalar."""
        done = torch.as_tensor(progress)
        since = done - self.start
        rise = (since / self.warm_up).clamp(0, 1) if self.warm_up > 0 else torch.ones_like(done)
        return rise * ((since >= 0) & ((done < self.end) | (self.end == 1)))

    def scale(self, loss: Tensor, progress: Tensor | float) -> Tensor:
        """Return the loss with its value as it is and its gradient scaled by :meth:`factor`."""
        if self == ALWAYS:
            return loss
        value = loss.detach()
        return value + self.factor(progress).to(loss) * (loss - value)


ALWAYS = Schedule()
"""From the first step to the last."""
