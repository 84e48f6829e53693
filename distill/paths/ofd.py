"""Overhaul of feature distillation: the teacher's responses, and of its silence no more than that it is silent."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from distill import distributed
from distill.paths.base import AdaptedFeaturePath, key
from distill.paths.sizes import pooled_alike
from distill.taps import Probe


class OFD(AdaptedFeaturePath):
    """Matches the teacher's map before its activation where that responds; elsewhere the student need not be exact.

    The taps read what enters the activation functions. For each stage, with adapted student features ``s`` and teacher
    features ``t``, ``[channel, height, width]``, and a margin ``m`` a channel, the mean of the teacher's negative
    values::

        a = max(t, m)
        loss = mean over batch, channels and positions of (0 if s <= a <= 0 else (s - a)^2)

    So where the teacher is silent, a student below ``a`` pays nothing, however far below it lies. The target is the
    teacher's map ``t``. Where height or width differ, the larger map, adapted or the teacher's, is averaged down first.

    The margins are means over all that was seen so far, the present batch included: sums and numbers of negative values
    are kept as buffers, in checkpoints too, and grow in training mode with the batches of all workers. In evaluation
    mode they stay. A channel of which no negative value was seen has margin 0.

    Where a tap ends in no activation function, as a residual sum does, it is read as it is; so is one that is made of
    activations, such as a concatenation or a pooling of them, which has no negative values: this is then the squared
    difference, with a hinge where the teacher is silent.

    Source: Heo et al. 2019, *A comprehensive overhaul of feature distillation* (arXiv:1904.01866), section 3, and the
    authors' code. Departures: they take the expected negative value from the teacher's last BatchNorm, as of a normal
    distribution (and three standard deviations below zero where negative values are rarer than 1 in 1000); a teacher
    here may be any model, so it is measured, as the paper's definition allows. In networks whose blocks begin with
    BatchNorm and ReLU the authors read the BatchNorm of the next stage's first block: name it as a tap to do so. The
    authors sum over channels and positions, halve the weight of each
    stage before the last once more, and weigh the whole by 1e-3 (CIFAR-100) or 1e-4 (ImageNet). Where every stage
    halves height and width and doubles the channels, a stage has twice the neurons of the next one, so the mean makes
    the same of it: their weights are ``1e-3 * channels * height * width`` of the last stage, in the mean's terms, for
    every stage (16 for 256 x 8 x 8). Their teacher's BatchNorm is in training mode, here it never is.

    Args:
        taps: ``auto`` (the paper: every stage), or a list of ``{student: NAME, teacher: NAME}``.

    Raises:
        ValueError: at ``connect``: an activation function cannot be looked in front of.
    """

    before_activation = True
    target_options = ()

    def build(self, student: Probe, teacher: Probe) -> None:
        """Build an adapter and margins a pair."""
        super().build(student, teacher)
        self.margins = nn.ModuleDict({key(pair.layer): Margin(teacher[pair.teacher].channels) for pair in self.pairs})

    def layer_target(self, layer: str, teacher: Tensor) -> Tensor:
        return teacher

    def layer_loss(self, layer: str, student: Tensor, target: Tensor) -> Tensor:
        adapted, teacher = pooled_alike(self.adapt(layer, student), target)
        margin = self.margins[key(layer)](teacher)
        aim = torch.maximum(teacher, margin[:, None, None])
        gap = adapted - aim
        return torch.where(aim > 0, gap, F.relu(gap)).square().mean()


class Margin(nn.Module):
    """The mean of the negative values of each channel, over all maps that were seen in training mode.

    Args:
        channels: width of the maps.
    """

    negatives: Tensor  # [2, channel]: the sum of the negative values, and their number

    def __init__(self, channels: int) -> None:
        super().__init__()
        # In single precision the numbers, which reach 1e9, would swallow what a batch adds.
        self.register_buffer("negatives", torch.zeros(2, channels, dtype=torch.float64))

    def forward(self, maps: Tensor) -> Tensor:
        """Return the margins, ``[channel]``, after a look at these maps ``[batch, channel, height, width]``."""
        if self.training:
            sums = torch.stack([maps.clamp_max(0).sum(dim=(0, 2, 3)), (maps < 0).to(maps.dtype).sum(dim=(0, 2, 3))])
            self.negatives += distributed.sum(sums.to(self.negatives.dtype))
        return (self.negatives[0] / self.negatives[1].clamp_min(1)).to(maps.dtype)
