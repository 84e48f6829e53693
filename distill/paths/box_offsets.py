"""Boxes: where the teacher is sure of an object, does the student put the box where the teacher puts it?"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from distill.batch import Batch
from distill.paths.answers import check_boxes
from distill.paths.base import Path, Taps, Target, no_autocast, widen
from distill.taps import BOXES, OUTPUT, Probe, TapPair


class BoxOffsets(Path):
    """Matches the offsets of the boxes, location by location, as much as the teacher is sure of an object there.

    With the offsets ``s`` and ``t`` of student and teacher, ``[4, location]``, and the teacher's confidence ``w``::

        loss = mean over batch of (sum over locations of w * mean over sides of smooth(s - t)) / max(1, sum of w)

    ``smooth(d)`` is ``d^2 / 2`` where ``|d| < 1``, else ``|d| - 1/2``. ``w`` is the probability of the likeliest class
    where each class has one of its own, and otherwise that of all classes but the first, the background. A location
    without objects has next to no weight, however many there are.

    Both models need locations that mean the same: detectors of one family with the same anchors. The target is offsets
    and confidence, ``[batch, 5, location]``; a probability of its own is kept as its logit, since the last bit of a
    sigmoid depends on the place in the batch on some CPUs, and stored targets come from other batches.

    Source: Mehta and Ozturk 2018, *Object detection at 200 frames per second* (arXiv:1805.06361), whose distillation
    loss of boxes is scaled by the teacher's objectness. Departures: their detector says where a box lies in its cell,
    and has an objectness besides its classes; dividing by the sum of the weights, as detectors do by the number of
    objects, and the smooth loss, which is that of Fast R-CNN, are ours.
    """

    target_options = ("_independent",)

    _independent = False

    def choose_pairs(self, student: Probe, teacher: Probe) -> tuple[TapPair, ...]:
        """Pair the offsets, and the student's with the teacher's logits, which say how sure it is.

        Raises:
            ValueError: a model gives no offsets, or those of other locations or anchors.
        """
        shapes = [probe.output_shapes.get(BOXES) for probe in (student, teacher)]
        if None in shapes:
            role = ("student", "teacher")[shapes.index(None)]
            raise ValueError(f"BoxOffsets compares the boxes of two detectors, but the {role} gives none")
        if shapes[0] != shapes[1]:
            found = " and the teacher ".join(str(list(shape or ())) for shape in shapes)
            raise ValueError(
                f"BoxOffsets compares boxes location by location, but the student gives {found} a sample: both models "
                "must be of one family with the same anchors; use paths between features, such as PKD or FGD"
            )
        check_boxes("BoxOffsets", student, teacher)
        self._independent = teacher.head.independent
        return TapPair(BOXES, BOXES, "boxes"), TapPair(BOXES, OUTPUT, "confidence")

    @property
    def layers(self) -> tuple[str, ...]:
        """The one layer ``boxes``."""
        return ("boxes",)

    def target(self, taps: Taps) -> Target:
        """Return the teacher's offsets and, below them, its confidence or its logit, ``[batch, 5, location]``."""
        offsets, logits = widen(taps[BOXES].detach()), widen(taps[OUTPUT].detach())
        with no_autocast(logits):
            if self._independent:
                confidence = logits.amax(dim=1, keepdim=True)
            else:
                confidence = logits.softmax(dim=1)[:, 1:].sum(dim=1, keepdim=True)
            return {"boxes": torch.cat([offsets, confidence], dim=1)}

    def forward(self, taps: Taps, target: Target, batch: Batch) -> dict[str, Tensor]:
        """Return the loss under the one layer name ``boxes``."""
        student, wanted = widen(taps[BOXES]), widen(target["boxes"])
        with no_autocast(student):
            offsets, confidence = wanted[:, :4], wanted[:, 4]  # [batch, 4, location], [batch, location]
            if self._independent:
                confidence = confidence.sigmoid()
            distances = F.smooth_l1_loss(student, offsets, reduction="none").mean(dim=1)
            sums = (confidence * distances).sum(dim=1)
            return {"boxes": (sums / confidence.sum(dim=1).clamp_min(1)).mean()}
