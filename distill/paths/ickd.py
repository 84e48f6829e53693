"""Inter-channel correlation: to which other channels is each channel akin?"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from distill.options import whole
from distill.paths.base import TapChoice
from distill.paths.gram import GramPath
from distill.taps import Probe

EPSILON = 1e-12
"""Rows of the Gram matrix shorter than this count as (almost) zero, as in the authors' code."""


class ICKD(GramPath):
    """Matches to which channels each channel is akin: the direction of its row in the Gram matrix.

    With adapted student features ``S`` and teacher features ``T`` as ``[channel, position]`` matrices::

        G = S S', each row divided by its length          H = T T' likewise
        loss = mean over batch and channels of ||row of G - row of H||^2

    It differs from ``NSTGram`` in what has unit length. There each channel has, so that the Gram matrix holds cosines
    and all pairs of channels count alike; here each row of the matrix has, so that in the row of a channel the strong
    channels outweigh the weak ones, and the loss of a channel lies between 0 and 4.

    Where a teacher layer has more than four times as many channels as positions the ``[channel, channel]`` matrices are
    never formed: with ``s_i`` a row of ``S``, lengths and products of rows are ``s_i' (S' S) s_i`` under the root and
    ``s_i' (S' T) t_i``. The distances that follow from them cancel near zero (absolute error about 1e-6 in float32), so
    they are cut off at zero. The target of such a layer is the teacher's map, ``[batch, channel, height, width]``, else
    ``H``, ``[batch, channel, channel]``. Student and teacher may differ in height and width.

    For dense prediction ``grid`` divides both maps into ``grid * grid`` cells of nearly one size, each with matrices of
    its own: which channels are akin *here*? The loss is the mean over the cells. A target that is ``H`` becomes
    ``[batch, cell, channel, channel]``.

    Source: Liu et al. 2021, *Exploring inter-channel correlation for diversity-preserved knowledge distillation* (ICCV,
    arXiv:2202.03680), ICKD-C in the form of the authors' code for CIFAR-100: the deepest features, rows of unit length,
    and a 1x1 convolution + BatchNorm on the student's side even where the widths agree. Their weight there is 2.5.
    Their code for ImageNet has a 3x3 convolution and divides by the batch once more, with the weight 500 for batches of
    256, about 2 here. The grid is theirs for semantic segmentation; its size there could not be checked.

    Args:
        taps: ``auto`` (the authors: the deepest features; every level of a pyramid), or a list of
            ``{student: NAME, teacher: NAME}``.
        grid: cells along each side, at least 1.

    Raises:
        ValueError: ``grid`` is out of bounds; at ``connect``: a map has fewer rows or columns than cells.
    """

    target_options = ("grid",)
    only_last = True
    most_channels = 4

    def __init__(self, taps: TapChoice = "auto", grid: int = 1) -> None:
        super().__init__(taps)
        self.grid = whole("grid", grid, at_least=1)

    def build(self, student: Probe, teacher: Probe) -> None:
        """Build an adapter a pair, and choose by the teacher alone whether matrices are formed."""
        super().build(student, teacher)
        for pair in self.pairs:
            own, other = student[pair.student], teacher[pair.teacher]
            for tap in (own, other):
                if min(tap.height, tap.width) < self.grid:
                    raise ValueError(
                        f"grid: {self.grid} divides maps into {self.grid} x {self.grid} cells, but {tap.name!r} has "
                        f"{tap.height} x {tap.width} positions; at most {min(tap.height, tap.width)} is possible"
                    )
            positions = other.height * other.width / self.grid**2
            self._few_positions[pair.layer] = other.channels > self.most_channels * positions

    def layer_target(self, layer: str, teacher: Tensor) -> Tensor:
        if self._few_positions[layer]:
            return teacher
        if self.grid > 1:
            return torch.stack([_unit_gram(cell) for cell in self._cells(teacher)], dim=1)
        return _unit_gram(teacher.flatten(2))

    def layer_loss(self, layer: str, student: Tensor, target: Tensor) -> Tensor:
        if self.grid > 1:
            return self._grid_loss(layer, self._cells(self.adapt(layer, student)), target)
        if self._few_positions[layer]:
            return _row_distances(self.adapt(layer, student).flatten(2), target.flatten(2)).mean()
        return (_unit_rows(self.adapter(layer).gram(student)) - target).square().sum(dim=2).mean()

    def _grid_loss(self, layer: str, cells: list[Tensor], target: Tensor) -> Tensor:
        """Return the mean of the cells' losses, of adapted cells ``[batch, channel, position]``."""
        if self._few_positions[layer]:
            pairs = zip(cells, self._cells(target), strict=True)
            return torch.stack([_row_distances(own, other).mean() for own, other in pairs]).mean()
        own = torch.stack([_unit_gram(cell) for cell in cells], dim=1)
        return (own - target).square().sum(dim=3).mean()

    def _cells(self, maps: Tensor) -> list[Tensor]:
        """Return the cells of ``[batch, channel, height, width]``, row by row, each ``[batch, channel, position]``."""
        rows = maps.tensor_split(self.grid, dim=2)
        return [cell.flatten(2) for row in rows for cell in row.tensor_split(self.grid, dim=3)]


def _unit_gram(rows: Tensor) -> Tensor:
    return _unit_rows(rows @ rows.mT)


def _unit_rows(gram: Tensor) -> Tensor:
    return F.normalize(gram, dim=2, eps=EPSILON)


def _row_distances(student: Tensor, teacher: Tensor) -> Tensor:
    """Return, channel by channel, the squared distance between the unit rows of both Gram matrices.

    Args:
        student: ``[batch, channel, position]``.
        teacher: likewise, of as many channels; the number of positions may differ.

    Returns:
        ``[batch, channel]``.
    """
    own, other = _row_energies(student), _row_energies(teacher)
    own_scale, other_scale = (energy.clamp_min(EPSILON**2).rsqrt() for energy in (own, other))
    products = ((student @ (student.mT @ teacher)) * teacher).sum(dim=2)
    squares = own * own_scale.square() + other * other_scale.square()
    # By Cauchy and Schwarz; rounding must not make a large loss of a weak row that is orthogonal to strong ones.
    cosines = (products * own_scale * other_scale).clamp(-1, 1)
    return (squares - 2 * cosines).clamp_min(0)


def _row_energies(rows: Tensor) -> Tensor:
    """Return the squared length of each row of ``R R'``, ``[batch, channel]``."""
    energies = ((rows @ (rows.mT @ rows)) * rows).sum(dim=2)
    # A row's product with itself is part of it; rounding must not take it below that, for it will be divided by.
    return torch.maximum(energies, rows.square().sum(dim=2).square())
