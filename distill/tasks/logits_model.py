"""A model that returns its logits and nothing else, whatever it returned before."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor, nn


class LogitsModel(nn.Module):
    """A model behind what its task takes from it, to be exported: one tensor in, one tensor out.

    Args:
        model: any module; it becomes a part of this one.
        run: runs it on images ``[batch, channel, height, width]``.
        logits: takes the logits ``[batch, class, ...]`` from what it returned.
    """

    def __init__(
        self, model: nn.Module, run: Callable[[nn.Module, Tensor], Any], logits: Callable[[Any], Tensor]
    ) -> None:
        super().__init__()
        self.model = model
        self._run = run
        self._logits = logits
        self.training = model.training  # a new module would begin in training mode, and pass that on

    def forward(self, images: Tensor) -> Tensor:
        """Return the logits ``[batch, class, ...]`` of images ``[batch, channel, height, width]``."""
        return self._logits(self._run(self.model, images))
