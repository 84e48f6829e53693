"""Localisation distillation: how sure is the teacher of each side of a box?"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from distill.batch import Batch
from distill.objects import Objects
from distill.options import finite
from distill.paths.answers import check_boxes
from distill.paths.base import Path, Taps, Target, no_autocast, widen
from distill.taps import BOX_DISTRIBUTION, LocationHead, Probe, TapPair

EPSILON = 1e-9
"""Added to what boxes are divided by, which is zero where they are empty; squared pixels."""


class LD(Path):
    """Matches the distribution of each side of a box, where there are objects and around them.

    A head of this kind says for each side (left, top, right, bottom) how likely each distance from the location is, so
    that blurred borders show. With its logits ``s`` and ``t`` of student and teacher, ``[bin]``::

        p = softmax(t / T)    q = softmax(s / T)
        L(region) = T^2 * mean over the region's locations and the sides of sum over bins of p * log(p / q)
        loss = main * L(main region) + valuable * L(valuable region)

    The main region are the locations of the batch that the student trains on objects; the valuable region are those
    whose anchor still overlaps an object, by ``DIoU >= valuable_iou``, and that are not in the main region. ``DIoU`` is
    the boxes' intersection over union less the squared distance of their centres over the squared diagonal of the
    smallest box around both; for it the anchor is ``anchor_scale`` times as large. A region without locations costs
    nothing.

    Both models need box distributions of equal shape. The target is ``t``, ``[batch, 4 * bins, location]``, side by
    side.

    Source: Zheng et al. 2022, *Localization distillation for dense object detection* (CVPR, arXiv:2102.12252),
    section 3, with its ``T = 10``. Departures: the paper's regions follow from the thresholds ``a`` by which its
    detector assigns objects to locations (ATSS): the positive ones, and DIoU between ``0.25 a`` and ``a``. Here too the
    detector's own choice is the main region, whatever its rule; but ``valuable_iou`` is 0.25 times 0.5 for all objects,
    and ``anchor_scale`` makes of anchors of one stride those of eight that ATSS has. Where the authors' code differs:
    it divides by the number of bins too, weighs the main region by the student's own confidence and the valuable one by
    ``DIoU``, and divides sums over locations and sides by 4 and 16; its weights are 0.25 for either region.

    Args:
        main: weight of the main region, at least 0.
        valuable: weight of the valuable region, at least 0.
        temperature: ``T``, above 0.
        valuable_iou: the least ``DIoU`` of the valuable region, from -1 to below 1.
        anchor_scale: by which anchors grow before they are compared with objects, above 0.

    Raises:
        ValueError: an option is out of bounds.
    """

    needs_labels = ("objects",)
    target_options = ()

    _locations: LocationHead

    def __init__(
        self,
        main: float = 1.0,
        valuable: float = 1.0,
        temperature: float = 10.0,
        valuable_iou: float = 0.125,
        anchor_scale: float = 8.0,
    ) -> None:
        super().__init__()
        self.main = finite("main", main, at_least=0)
        self.valuable = finite("valuable", valuable, at_least=0)
        self.temperature = finite("temperature", temperature, above=0)
        self.valuable_iou = finite("valuable_iou", valuable_iou, at_least=-1, below=1)
        self.anchor_scale = finite("anchor_scale", anchor_scale, above=0)

    def choose_pairs(self, student: Probe, teacher: Probe) -> tuple[TapPair, ...]:
        """Pair the distributions.

        Raises:
            ValueError: a model gives none, or one of another shape or of other anchors.
        """
        own, other = (probe.output_shapes.get(BOX_DISTRIBUTION) for probe in (student, teacher))
        if own is None or other is None or student.head.locations is None:
            role = "student" if own is None or student.head.locations is None else "teacher"
            raise ValueError(
                f"LD compares distributions of the sides of boxes, but the {role}'s head gives none: both models need "
                "one, as DistributionFCOS has; use BoxOffsets with other heads"
            )
        if own != other:
            raise ValueError(
                f"LD compares distributions location by location, but the student gives {list(own)} and the teacher "
                f"{list(other)} a sample: both models must have the same levels and bins"
            )
        check_boxes("LD", student, teacher)
        self._locations = student.head.locations
        return (TapPair(BOX_DISTRIBUTION, BOX_DISTRIBUTION, "sides"),)

    def target(self, taps: Taps) -> Target:
        """Return the teacher's logits of the distributions, ``[batch, 4 * bins, location]``."""
        return {"sides": widen(taps[BOX_DISTRIBUTION].detach())}

    def forward(self, taps: Taps, target: Target, batch: Batch) -> dict[str, Tensor]:
        """Return the loss under the one layer name ``sides``.

        Raises:
            ValueError: the images are not labelled with objects.
        """
        student, teacher = widen(taps[BOX_DISTRIBUTION]), widen(target["sides"])
        with no_autocast(student):
            log_q, log_p = (self._log_shares(logits) for logits in (student, teacher))
            divergences = (log_p.exp() * (log_p - log_q)).sum(dim=2).clamp_min(0).mean(dim=1)  # [batch, location]
            main = self._locations.positive(batch.objects)
            valuable = self._near(batch.objects, student.device) & ~main
            loss = self.main * _mean(divergences, main) + self.valuable * _mean(divergences, valuable)
            return {"sides": self.temperature**2 * loss}

    def _log_shares(self, logits: Tensor) -> Tensor:
        """Return the logarithms of each side's distribution, ``[batch, 4, bin, location]``."""
        sides = logits.reshape(len(logits), 4, -1, logits.shape[2])
        return F.log_softmax(sides / self.temperature, dim=2)

    def _near(self, objects: Objects, device: torch.device) -> Tensor:
        """Return which locations' anchors overlap an object enough, ``[batch, location]``."""
        left, top, right, bottom = self._locations.anchors(device).unbind(dim=1)
        x, y, width, height = (left + right) / 2, (top + bottom) / 2, right - left, bottom - top
        reach = self.anchor_scale / 2
        grown = torch.stack([x - reach * width, y - reach * height, x + reach * width, y + reach * height], dim=1)
        return torch.stack(
            [
                (_diou(grown, boxes[~ignored]) >= self.valuable_iou).any(dim=1)
                for boxes, ignored in zip(objects.boxes, objects.ignored, strict=True)
            ]
        )


def _mean(values: Tensor, chosen: Tensor) -> Tensor:
    """Return the mean of the chosen ones, 0 without any."""
    return (values * chosen).sum() / chosen.sum().clamp_min(1)


def _diou(one: Tensor, other: Tensor) -> Tensor:
    """Return the distance-IoU (Zheng et al. 2020, arXiv:1911.08287) of boxes ``[n, 4]`` and ``[m, 4]``, ``[n, m]``."""
    one, other = one[:, None], other[None]
    first, last = torch.maximum(one[..., :2], other[..., :2]), torch.minimum(one[..., 2:], other[..., 2:])
    shared = (last - first).clamp_min(0).prod(dim=2)
    areas = (one[..., 2:] - one[..., :2]).prod(dim=2) + (other[..., 2:] - other[..., :2]).prod(dim=2)
    around = torch.maximum(one[..., 2:], other[..., 2:]) - torch.minimum(one[..., :2], other[..., :2])
    apart = (one[..., :2] + one[..., 2:] - other[..., :2] - other[..., 2:]) / 2
    distance = apart.square().sum(dim=2) / (around.square().sum(dim=2) + EPSILON)
    return shared / (areas - shared + EPSILON) - distance
