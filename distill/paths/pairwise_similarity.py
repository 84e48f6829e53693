"""Pair-wise similarity: which parts of an image are alike?"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from distill.options import whole
from distill.paths.affinities import affinity_distance, cosines, unit_positions
from distill.paths.base import FeaturePath, TapChoice
from distill.taps import Probe


class PairwiseSimilarity(FeaturePath):
    """Matches which parts of an image are alike: the cosines between all pairs of patches of the map.

    The map is divided into ``nodes * nodes`` patches, and ``f_i`` holds the largest value of each channel in the patch
    ``i``::

        a_ij = f_i . f_j / (|f_i| |f_j|)
        loss = mean over batch and all pairs of patches of (a_ij of the student - a_ij of the teacher)^2

    Parts of one image are compared, so widths and sizes of student and teacher may differ and there is no adapter.
    Where a side of a map is shorter than ``nodes`` its positions repeat.

    The target is the teacher's ``a``, ``[batch, patch, patch]``, or where the teacher has fewer channels than there are
    patches ``f`` with patches of unit length, ``[batch, channel, patch]``.

    Source: Liu et al. 2019, *Structured knowledge distillation for semantic segmentation* (CVPR, arXiv:1903.04197), its
    pair-wise distillation, in the form of the authors' code: patches of half the map's height and width, 2 x 2 of them,
    pooled by maximum, at a map before the classifier, which is the deepest features here; its weight is 1 there, beside
    10 for soft targets of each pixel. Departures: what their windows of half an odd height or width leave over makes
    patches of its own, here all have nearly one size; they take no gradient through the lengths; vectors shorter than
    1e-6 are divided by that, while they add 1e-8.

    Args:
        taps: ``auto`` (the deepest features; every level of a pyramid), or a list of
            ``{student: NAME, teacher: NAME}``.
        nodes: patches along each side, at least 2.

    Raises:
        ValueError: ``nodes`` is out of bounds.
    """

    target_options = ("nodes",)
    only_last = True

    def __init__(self, taps: TapChoice = "auto", nodes: int = 2) -> None:
        super().__init__(taps)
        self.nodes = whole("nodes", nodes, at_least=2)
        self._is_narrow: dict[str, bool] = {}

    def build(self, student: Probe, teacher: Probe) -> None:
        """Choose by the teacher's width in which form its similarities are kept."""
        for pair in self.pairs:
            self._is_narrow[pair.layer] = teacher[pair.teacher].channels < self.nodes**2

    def layer_target(self, layer: str, teacher: Tensor) -> Tensor:
        patches = self._patches(teacher)
        return patches if self._is_narrow[layer] else cosines(patches)

    def layer_loss(self, layer: str, student: Tensor, target: Tensor) -> Tensor:
        patches = self._patches(student)
        if self._is_narrow[layer]:
            return affinity_distance(patches, target)
        return F.mse_loss(cosines(patches), target)

    def _patches(self, maps: Tensor) -> Tensor:
        """Return the patches' largest values, of unit length over the channels, ``[batch, channel, patch]``."""
        return unit_positions(F.adaptive_max_pool2d(maps, self.nodes))
