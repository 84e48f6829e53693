"""What one batch comes to: its losses, and by how much each of them counted."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor


class Step(NamedTuple):
    """The losses of one batch.

    Attributes:
        total: scalar; its gradient is the update to make.
        task: scalar, the supervised loss.
        layers: ``[layer]``, the loss of every layer of every path, in the order of ``Distiller.layer_keys``.
        weights: ``[layer]``, detached: by how much each of them counted.
        task_weight: scalar, detached: by how much the task's loss counted; ``None``: as it is.
        products: ``[path, 3]``, detached, where a look was asked for: of each path's gradient with the task's the inner
            product, the task's squared length and the path's.
    """

    total: Tensor
    task: Tensor
    layers: Tensor
    weights: Tensor
    task_weight: Tensor | None = None
    products: Tensor | None = None

    def detach(self) -> Step:
        """Return the same numbers without their graph."""
        return self._replace(total=self.total.detach(), task=self.task.detach(), layers=self.layers.detach())

    @staticmethod
    def mean(steps: Sequence[Step]) -> Step:
        """Return the mean over the batches of one optimiser step; gradients are looked at in the first of them."""
        if len(steps) == 1:
            return steps[0]
        total, task, layers = (
            torch.stack(values).mean(0) for values in zip(*(step[:3] for step in steps), strict=True)
        )
        weights = _by_loss([step.weights for step in steps], [step.layers for step in steps])
        own = [step.task_weight for step in steps if step.task_weight is not None]
        task_weight = _by_loss(own, [step.task for step in steps]) if own else None
        return Step(total, task, layers, weights, task_weight, steps[0].products)


def _by_loss(weights: Sequence[Tensor], losses: Sequence[Tensor]) -> Tensor:
    """Return mean weights: those that make of the mean losses what counted; plain means where a loss is zero."""
    weight, loss = torch.stack(list(weights)), torch.stack(list(losses))
    mean = loss.mean(0)
    counted = (weight * loss).mean(0) / torch.where(mean == 0, 1.0, mean)
    return torch.where(mean == 0, weight.mean(0), counted)
