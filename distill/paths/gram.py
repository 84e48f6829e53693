"""Distances between Gram matrices that need not be formed."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor

from distill.paths.base import AdaptedFeaturePath, TapChoice
from distill.taps import Probe


class GramPath(AdaptedFeaturePath):
    """A path between the Gram matrices of channels, which are not formed where a teacher's layer has few positions."""

    most_channels: ClassVar[int] = 1
    """Channels a position up to which the matrices are formed."""

    def __init__(self, taps: TapChoice = "auto") -> None:
        super().__init__(taps)
        self._few_positions: dict[str, bool] = {}

    def build(self, student: Probe, teacher: Probe) -> None:
        super().build(student, teacher)
        # The choice looks at the teacher alone, so that one stored target serves every student.
        for pair in self.pairs:
            tap = teacher[pair.teacher]
            self._few_positions[pair.layer] = tap.channels > self.most_channels * tap.height * tap.width


def columns_are_few(own: int, other: int, rows: int) -> bool:
    """Whether :func:`gram_distance` takes fewer multiply-adds, forward and backward, than the two matrices it avoids.

    Args:
        own: columns of ``S``.
        other: columns of ``T``.
        rows: of both.
    """
    without = rows * (2 * own**2 + 2 * own * other + other**2)
    return without < rows**2 * (3 * own + other)


def gram_distance(rows: Tensor, target: Tensor) -> Tensor:
    """Return ``||S S' - T T'||^2`` of each sample, without forming either, and without gradient in the target.

    It equals ``||S' S||^2 + ||T' T||^2 - 2 ||S' T||^2``, which costs less where the matrices have more rows than
    columns. What the three terms leave over near zero is rounding, of either sign.

    Args:
        rows: ``S``, ``[batch, row, column]``.
        target: ``T``, ``[batch, row, column]``, of as many rows; the number of columns may differ.
    """
    distance: Tensor = _GramDistance.apply(rows, target)
    return distance


class _GramDistance(torch.autograd.Function):
    """The gradient ``4 (S S' S - T T' S)`` takes two products; autograd would take three, and give some transposed."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor, target: Tensor) -> Tensor:
        own, cross = rows.mT @ rows, rows.mT @ target  # [batch, column, column]
        ctx.save_for_backward(rows, target, own, cross)
        return _energy(own) + _energy(target.mT @ target) - 2 * _energy(cross)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        rows, target, own, cross = ctx.saved_tensors
        scale = 4 * gradients[0][:, None, None]
        own, cross = scale * own, scale * cross
        if rows.stride(1) == 1:  # a transposed view, as of a channels-last map
            return torch.baddbmm(own @ rows.mT, cross, target.mT, alpha=-1).mT, None
        return torch.baddbmm(rows @ own, target, cross.mT, alpha=-1), None


def _energy(matrices: Tensor) -> Tensor:
    return matrices.square().sum(dim=(1, 2))  # [batch]
