"""Regions: what does the student's second stage say of the regions that the teacher looks at?"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from distill.batch import Batch
from distill.options import finite, whole
from distill.paths.base import Path, Taps, Target, no_autocast, widen
from distill.taps import Probe, RegionHead, TapPair, is_output


class RegionLogits(Path):
    """Matches what the second stages of two detectors say of the teacher's proposals: the class, and where the box is.

    For each of the ``number`` regions that the teacher's first stage finds most likely, with the class logits ``s`` and
    ``t``, the class weights ``w`` (``background_weight`` for class 0, else 1), and the box offsets ``a`` and ``b``,
    ``[class, 4]``, of student and teacher::

        p = softmax(t / T)    q = softmax(s / T)    p' = w p / Z    Z = sum over classes of w p
        classes = T^2 * mean over batch and regions of Z * sum over classes of p' * log(p' / q)
        v = p at T = 1, without class 0
        boxes = mean over batch of sum over regions and classes of v * mean over sides of smooth(a - b) / max(1, sum v)

    ``classes`` is the cross-entropy weighted by class less the least value that any ``q`` could give it: the gradient
    is that of the weighted cross-entropy, and the least loss 0. ``smooth(d)`` is ``d^2 / 2`` where ``|d| < 1``, else
    ``|d| - 1/2``. Both are layers. Where the teacher proposes fewer regions the rest does not count.

    The student looks at the teacher's regions in its own maps, so the two may differ in their backbones, widths and
    anchors; they need the same classes. Gradient flows through the student's second stage, whose parameters remain the
    student's. Corners of regions are rounded to what half precision holds (a quarter of a pixel at 512) before either
    model looks, so that targets from a store are for the very same regions. The target is, a region, its corners with
    the teacher's logits, ``[batch, region, 4 + class]``, or with its offsets, ``[batch, region, 4 + 4 * class]``.

    Source: Chen et al. 2017, *Learning efficient object detection models with knowledge distillation* (NeurIPS),
    sections 3.2 and 3.3, with their weight 1.5 of the background and ``T = 1``. Departures: the student's regions are
    the teacher's, where they have those of the student; and the offsets are matched as far as the teacher sees an
    object, as in Mehta and Ozturk 2018 (arXiv:1805.06361), where they bound the student's error by the teacher's,
    which needs the labels of the regions.

    Args:
        number: of regions an image, at least 1.
        temperature: ``T``, above 0.
        background_weight: weight of class 0, above 0.

    Raises:
        ValueError: an option is out of bounds.
    """

    target_options = ("number",)

    def __init__(self, number: int = 64, temperature: float = 1.0, background_weight: float = 1.5) -> None:
        super().__init__()
        self.number = whole("number", number, at_least=1)
        self.temperature = finite("temperature", temperature, above=0)
        self.background_weight = finite("background_weight", background_weight, above=0)

    @property
    def layers(self) -> tuple[str, ...]:
        """The layers ``classes`` and ``boxes``."""
        return "classes", "boxes"

    def choose_pairs(self, student: Probe, teacher: Probe) -> tuple[TapPair, ...]:
        """Pair the student's levels with all that the teacher's first stage needs.

        Raises:
            ValueError: a model has no second stage, or they know different classes.
        """
        self._student = _regions(student, "student")
        self._teacher = _regions(teacher, "teacher")
        numbers = self._student.num_classes, self._teacher.num_classes
        if numbers[0] != numbers[1]:
            raise ValueError(
                f"RegionLogits compares logits of equal shape, but the student tells {numbers[0]} classes apart and "
                f"the teacher {numbers[1]}: both models need the same number of classes"
            )
        own = [tap.name for tap in student.stages]
        parts = [name for name in teacher.taps if is_output(name)]
        names = [(own[min(i, len(own) - 1)], parts[min(i, len(parts) - 1)]) for i in range(max(len(own), len(parts)))]
        return tuple(TapPair(one, other, f"{one}-{other}") for one, other in names)

    def target(self, taps: Taps) -> Target:
        """Return the teacher's regions, and what it says of them."""
        parts = {name: widen(value.detach()) for name, value in taps.items() if is_output(name)}
        with no_autocast(next(iter(parts.values()))):
            regions = self._teacher.propose(parts, self.number).half().to(next(iter(parts.values())))
            logits, offsets = self._teacher.describe(parts, regions)
            return {
                "classes": torch.cat([regions, logits.detach()], dim=2),
                "boxes": torch.cat([regions, offsets.detach().flatten(2)], dim=2),
            }

    def forward(self, taps: Taps, target: Target, batch: Batch) -> dict[str, Tensor]:
        """Return the losses of the layers ``classes`` and ``boxes``."""
        parts = {name: widen(value) for name, value in taps.items() if is_output(name)}
        with no_autocast(next(iter(parts.values()))):
            regions, logits = widen(target["classes"]).tensor_split([4], dim=2)
            offsets = widen(target["boxes"])[:, :, 4:].reshape(*logits.shape, 4)  # [batch, region, class, 4]
            own_logits, own_offsets = (widen(said) for said in self._student.describe(parts, regions))
            found = (regions[:, :, 2] > regions[:, :, 0]).to(logits)  # [batch, region]
            return {
                "classes": self._class_loss(own_logits, logits, found),
                "boxes": _box_loss(own_offsets, offsets, logits.softmax(dim=2)[:, :, 1:] * found[:, :, None]),
            }

    def _class_loss(self, student: Tensor, teacher: Tensor, found: Tensor) -> Tensor:
        weights = teacher.new_ones(teacher.shape[2])
        weights[0] = self.background_weight
        log_q = F.log_softmax(student / self.temperature, dim=2)
        log_weighted = F.log_softmax(teacher / self.temperature, dim=2) + weights.log()
        log_total = log_weighted.logsumexp(dim=2, keepdim=True)
        divergences = (log_weighted.exp() * (log_weighted - log_total - log_q)).sum(dim=2).clamp_min(0)
        means = (divergences * found).sum(dim=1) / found.sum(dim=1).clamp_min(1)
        return self.temperature**2 * means.mean()


def _box_loss(student: Tensor, teacher: Tensor, confidence: Tensor) -> Tensor:
    """Compare offsets ``[batch, region, class, 4]``, class 0 aside, for which there is no confidence either."""
    distances = F.smooth_l1_loss(student[:, :, 1:], teacher[:, :, 1:], reduction="none").mean(dim=3)
    sums = (confidence * distances).sum(dim=(1, 2))
    return (sums / confidence.sum(dim=(1, 2)).clamp_min(1)).mean()


def _regions(probe: Probe, role: str) -> RegionHead:
    if probe.head.regions is None:
        raise ValueError(
            f"RegionLogits compares the second stages of two detectors, but the {role} has none: it is for Faster R-CNN"
        )
    return probe.head.regions
