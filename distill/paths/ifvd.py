"""Intra-class feature variation: how typical of its class is each pixel?"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from distill.batch import Batch
from distill.data.annotation.mask import IGNORE
from distill.paths.affinities import unit_positions
from distill.paths.base import TapChoice, Taps, Target, no_autocast, widen
from distill.paths.known import mean_of_known
from distill.paths.sizes import pooled_alike
from distill.paths.whole_map import WholeMapPath
from distill.taps import Probe


class IFVD(WholeMapPath):
    """Matches how typical of its class each position is: its cosine with the mean of all that are of the class.

    For the features ``f_i`` at position ``i`` of class ``k``, and ``mu_k`` the mean over the positions of the image
    that are of class ``k``, in either model::

        M_i = f_i . mu_k / (|f_i| |mu_k|)
        loss = mean over the known positions of the batch of (M_i of the student - M_i of the teacher)^2

    Classes are those of the masks, brought to the map's size by nearest neighbours; positions whose class is not known
    (255) are left out, and where none is known the loss is 0. Gradient passes through the student's means. Each model
    is compared with itself, so widths may differ and there is no adapter. Maps of different size are brought to the
    smaller height and width first, by adaptive average pooling of the larger. The target is the teacher's whole map,
    ``[batch, channel, height, width]``.

    Source: Wang et al. 2020, *Intra-class feature variation distillation for semantic segmentation* (ECCV), in the form
    of the usual code, with means image by image. Departures: that code counts positions that are not known as perfect
    on both sides, which makes the loss smaller by their share; it enlarges the student's map where sizes differ, and
    adds 1e-6 to the number of positions of a class. Vectors shorter than 1e-6 are divided by that.

    Args:
        taps: ``auto`` (the deepest features), or a list of ``{student: NAME, teacher: NAME}``.
    """

    needs_labels = ("pixels",)
    only_last = True

    def __init__(self, taps: TapChoice = "auto") -> None:
        super().__init__(taps)
        self._num_classes = 1

    def build(self, student: Probe, teacher: Probe) -> None:
        """Remember how many classes there are."""
        self._num_classes = student.output_shape[0]

    def forward(self, taps: Taps, target: Target, batch: Batch) -> dict[str, Tensor]:
        """Return the loss of every pair."""
        losses = {}
        for pair in self.pairs:
            student = widen(taps[pair.student])
            with no_autocast(student):
                losses[pair.layer] = self._loss(student, widen(target[pair.layer]), batch.classes)
        return losses

    def layer_loss(self, layer: str, student: Tensor, target: Tensor) -> Tensor:
        """Return the loss of a pair where all positions are of one class."""
        return self._loss(student, target, torch.zeros_like(target[:, 0], dtype=torch.int64))

    def _loss(self, student: Tensor, teacher: Tensor, masks: Tensor) -> Tensor:
        student, teacher = pooled_alike(student, teacher)
        resized = F.interpolate(masks[:, None].to(student), student.shape[2:], mode="nearest")
        labels = resized.flatten(1).to(torch.int64)  # [batch, position]
        known = labels != IGNORE
        members = F.one_hot(labels.where(known, 0), self._num_classes).to(student) * known[:, :, None]
        return mean_of_known((_typicality(student, members) - _typicality(teacher, members)).square(), known)


def _typicality(maps: Tensor, members: Tensor) -> Tensor:
    """Return the cosine of each position with the mean of its class, ``[batch, position]``.

    Args:
        maps: ``[batch, channel, height, width]``.
        members: 1 where a position is of a class, else 0, ``[batch, position, class]``.
    """
    means = maps.flatten(2) @ members / members.sum(dim=1, keepdim=True).clamp_min(1)  # [batch, channel, class]
    own = unit_positions(means) @ members.mT  # [batch, channel, position]
    return (unit_positions(maps) * own).sum(dim=1)
