"""The teacher: frozen, always in evaluation mode, read through taps."""

from __future__ import annotations

from collections.abc import Collection, Iterable

import torch
from torch import Tensor, nn

from distill.taps import Tap
from distill.tasks import Task


class Teacher(nn.Module):
    """A frozen model whose activations the paths read.

    It never trains: its parameters take no gradient, ``train()`` leaves it in evaluation mode, and it is no part of
    the module that DDP wraps.

    Args:
        model: any module; it is used as it is.
        task: says which part of the model's output the logits are.
    """

    def __init__(self, model: nn.Module, task: Task) -> None:
        super().__init__()
        self.model = model.requires_grad_(False).eval()
        self.task = task
        self._reader = task.reader(self.model, ())

    def watch(self, taps: Iterable[Tap]) -> None:
        """Choose the taps that :meth:`forward` returns."""
        self.close()
        self._reader = self.task.reader(self.model, taps)

    def close(self) -> None:
        """Remove all hooks from the model."""
        self._reader.close()

    def train(self, mode: bool = True) -> Teacher:
        """Stay in evaluation mode, whatever ``mode`` says."""
        super().train(False)
        return self

    @torch.no_grad()
    def forward(self, images: Tensor, only: Collection[str] | None = None) -> dict[str, Tensor]:
        """Return the watched activations of ``images``, by tap name, without gradient.

        Args:
            images: ``[batch, channel, height, width]``.
            only: the taps that are needed; the model runs no deeper than these. ``None``: all, and the logits.
        """
        if only is not None:
            return self._reader.read(images, only)
        _, taps = self._reader(images)
        return taps

    @torch.no_grad()
    def answer(self, images: Tensor) -> Tensor | None:
        """Return what a student's agreement is measured against, see :meth:`distill.tasks.Task.answer`."""
        return self.task.answer(self.task.outputs(self.task.run(self.model, images)))
