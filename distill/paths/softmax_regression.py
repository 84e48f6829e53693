"""Softmax regression: would the teacher's own classifier be content with the student's features?"""

from __future__ import annotations

from dataclasses import replace

import torch.nn.functional as F
from torch import Tensor

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

    Gradient flows through ``W`` to the student, never into it. The student's own classifier takes no part, so both
    models may know different classes. The target is the teacher's logits ``t``, ``[batch, class]``.

    Source: Yang et al. 2021, *Knowledge distillation via softmax regression representation learning* (ICLR), in the
    form of Chennupati et al. 2021 (arXiv:2110.09674): no ReLU behind the adapter, other than in the former's code.
    Departures: the adapter belongs to this path, while the paper's code shares it with NST and FeatureMap; it leads
    to the classifier's width, which in a ResNet is that of the last stage.
    """

    target_options = ()

    weight: Tensor
    bias: Tensor | None

    def choose_pairs(self, student: Probe, teacher: Probe) -> tuple[TapPair, ...]:
        """Pair the student's deepest feature map with the teacher's output."""
        return tuple(replace(pair, teacher=OUTPUT) for pair in pair_last(student, teacher))

    def build(self, student: Probe, teacher: Probe) -> None:
        """Build the adapter and copy the teacher's classifier.

        Raises:
            ValueError: the teacher's logits do not come from a linear layer.
        """
        classifier = teacher.classifier
        if classifier is None:
            raise ValueError(
                "SoftmaxRegression needs a teacher whose last layer is an nn.Linear, found none that gives its output "
                f"of shape {list(teacher.output_shape)}; use Logits or SoftTarget with this teacher"
            )
        width = classifier.weight.shape[1]
        self.adapter = Adapter(student[self.pairs[0].student].channels, width)
        # Not persistent: they belong to the teacher, and connect() takes them from it again.
        self.register_buffer("weight", widen(classifier.weight.detach()).clone(), persistent=False)
        bias = None if classifier.bias is None else widen(classifier.bias.detach()).clone()
        self.register_buffer("bias", bias, persistent=False)

    def target(self, taps: Taps) -> Target:
        """Return the teacher's logits, ``[batch, class]``."""
        return {self.pairs[0].layer: widen(taps[OUTPUT].detach())}

    def forward(self, taps: Taps, target: Target, batch: Batch) -> dict[str, Tensor]:
        """Return the loss under the name of the student's tap."""
        pair = self.pairs[0]
        student = widen(taps[pair.student])
        with no_autocast(student):
            pooled = self.adapter.means(student)  # [batch, classifier.in_features]
            logits = F.linear(pooled, self.weight, self.bias)
            return {pair.layer: F.mse_loss(logits, widen(target[pair.layer]))}
