"""Softmax regression: would the teacher's own classifier be content with the student's features?"""

from __future__ import annotations

from dataclasses import replace

import torch.nn.functional as F
from torch import Tensor, nn

from distill.adapter import Adapter
from distill.batch import Batch
from distill.paths.base import Path, Taps, Target, no_autocast, widen
from distill.taps import OUTPUT, Probe, TapPair, pair_last


class SoftmaxRegression(Path):
    """Matches the teacher's logits with those that the teacher's classifier gives for the student's features.

    With the student's deepest feature map ``f``, the adapter ``g`` to the width of the teacher's classifier, and that
    classifier's frozen weight ``W`` and bias ``b``::

        u = W * mean over positions of g(f) + b         # [batch, class]
        loss = mean over batch and classes of (u - t)^2

    A teacher for semantic segmentation classifies every position, by a 1x1 convolution, and so does this::

        u = W * g(f) + b at every position, resized     # [batch, class, height, width], bilinear, of the size of t
        loss = mean over batch, classes and positions of (u - t)^2

    Gradient flows through ``W`` to the student, never into it. The student's own classifier takes no part, so both
    models may know different classes. The target is the teacher's logits ``t``, ``[batch, class, ...]``.

    Source: Yang et al. 2021, *Knowledge distillation via softmax regression representation learning* (ICLR), in the
    form of Chennupati et al. 2021 (arXiv:2110.09674): no ReLU behind the adapter, other than in the former's code.
    Departures: the adapter belongs to this path, while the paper's code shares it with NST and FeatureMap; it leads
    to the classifier's width, which in a ResNet is that of the last stage. The form for segmentation is ours; layers
    between the teacher's deepest map and its classifier are left to the adapter.
    """

    target_options = ()

    weight: Tensor  # [class, width], or that of a 1x1 convolution, [class, width, 1, 1]
    bias: Tensor | None

    def choose_pairs(self, student: Probe, teacher: Probe) -> tuple[TapPair, ...]:
        """Pair the student's deepest feature map with the teacher's output."""
        return tuple(replace(pair, teacher=OUTPUT) for pair in pair_last(student, teacher))

    def build(self, student: Probe, teacher: Probe) -> None:
        """Build the adapter and copy the teacher's classifier.

        Raises:
            ValueError: the teacher's logits do not come from a linear layer, or for dense ones from a 1x1 convolution.
        """
        classifier = teacher.classifier
        wanted = {1: nn.Linear, 3: nn.Conv2d}.get(len(teacher.output_shape))
        if teacher.is_pyramid or wanted is None:
            raise ValueError(
                "SoftmaxRegression needs a teacher with one classifier behind its deepest map, not a detector, found "
                f"one that gives logits {list(teacher.output_shape)} a sample; use paths between features"
            )
        if classifier is None or not isinstance(classifier, wanted):
            kind = "nn.Linear" if wanted is nn.Linear else "nn.Conv2d of kernel size 1"
            raise ValueError(
                f"SoftmaxRegression needs a teacher whose last layer is an {kind}, found none that gives its output "
                f"of shape {list(teacher.output_shape)}; use Logits or SoftTarget with this teacher"
            )
        width = classifier.weight.shape[1]
        self.adapter = Adapter(student[self.pairs[0].student].channels, width)
        # Not persistent: they belong to the teacher, and connect() takes them from it again.
        self.register_buffer("weight", widen(classifier.weight.detach()).clone(), persistent=False)
        bias = None if classifier.bias is None else widen(classifier.bias.detach()).clone()
        self.register_buffer("bias", bias, persistent=False)

    def target(self, taps: Taps) -> Target:
        """Return the teacher's logits, ``[batch, class, ...]``."""
        return {self.pairs[0].layer: widen(taps[OUTPUT].detach())}

    def forward(self, taps: Taps, target: Target, batch: Batch) -> dict[str, Tensor]:
        """Return the loss under the name of the student's tap."""
        pair = self.pairs[0]
        student = widen(taps[pair.student])
        with no_autocast(student):
            wanted = widen(target[pair.layer])
            return {pair.layer: F.mse_loss(self._classify(student, wanted), wanted)}

    def _classify(self, student: Tensor, wanted: Tensor) -> Tensor:
        """Return what the teacher's classifier says of the student's map, in the shape of the teacher's logits."""
        if self.weight.dim() == 2:
            pooled = self.adapter.means(student)  # [batch, classifier.in_features]
            return F.linear(pooled, self.weight, self.bias)
        logits = F.conv2d(self.adapter(student), self.weight, self.bias)
        return F.interpolate(logits, wanted.shape[2:], mode="bilinear", align_corners=False)
