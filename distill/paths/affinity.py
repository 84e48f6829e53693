"""Affinity: which positions of an image belong together, however far apart they are?"""

from __future__ import annotations

from torch import Tensor, nn

from distill.paths.affinities import affinity_distance, unit_positions
from distill.paths.base import key
from distill.paths.sizes import pooled_alike
from distill.paths.whole_map import WholeMapPath
from distill.taps import Probe


class Affinity(WholeMapPath):
    """Matches which positions of an image are akin: the cosines between the features of all pairs of positions.

    With the teacher's features ``t_i`` at position ``i`` of ``n``, and the student's ``s_i`` behind an adapter to the
    teacher's width (1x1 convolution without bias, also where the widths agree)::

        A_ij = s_i . s_j / (|s_i| |s_j|)          B_ij = t_i . t_j / (|t_i| |t_j|)
        loss = mean over batch and all pairs of positions of (A_ij - B_ij)^2

    Where a map has many more positions than channels the ``[position, position]`` matrices are never formed. The
    distances that follow without them cancel near zero (absolute error about 1e-7 in float32), so they are cut off at
    zero. Maps of different size are brought to the smaller height and width first, by adaptive average pooling of the
    larger. A map of one position has nothing to compare: its loss is zero. The target is the teacher's whole map,
    ``[batch, channel, height, width]``.

    Source: He et al. 2019, *Knowledge adaptation for efficient semantic segmentation* (CVPR, arXiv:1903.04688), its
    affinity distillation, at the deepest features. The paper's equation for the distance could not be checked, only
    its description. Where others differ: torchdistill gives each channel unit length over the positions, multiplies
    positions channel by channel, and sums the norms of the differences over the channels. Departures: the mean of
    squares; the paper compares with the teacher's features behind the autoencoder of ``KTA``, this with the features
    themselves, so that the target is known before the training; positions shorter than 1e-6 are divided by that.

    Args:
        taps: ``auto`` (the paper: the deepest features; every level of a pyramid), or a list of
            ``{student: NAME, teacher: NAME}``.
    """

    only_last = True

    adapters: nn.ModuleDict

    def build(self, student: Probe, teacher: Probe) -> None:
        """Build an adapter a pair."""
        widths = {pair.layer: (student[pair.student].channels, teacher[pair.teacher].channels) for pair in self.pairs}
        self.adapters = nn.ModuleDict(
            {key(layer): nn.Conv2d(own, other, kernel_size=1, bias=False) for layer, (own, other) in widths.items()}
        )

    def layer_loss(self, layer: str, student: Tensor, target: Tensor) -> Tensor:
        student, target = pooled_alike(student, target)
        return affinity_distance(unit_positions(self.adapters[key(layer)](student)), unit_positions(target))
