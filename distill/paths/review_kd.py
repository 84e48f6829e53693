"""Knowledge review: shallow stages of the student learn with the help of the deeper ones."""

from __future__ import annotations

from dataclasses import replace
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from distill.batch import Batch
from distill.paths.base import FeaturePath, Taps, Target, key, no_autocast, widen
from distill.taps import Probe, TapPair, pair_last

MAX_CHANNELS = 512
"""Largest width in which stages are fused, as in the authors' code."""
CONTEXTS = (4, 2, 1)
"""Heights and widths to which maps are pooled for the context loss."""


class ReviewKD(FeaturePath):
    """Matches each stage of the teacher with the student's stages up to the deepest, fused from the deepest upward.

    With the student's maps ``s`` of stages 1 (shallow) to ``n`` (deep), ``s[n + 1]`` the deepest features averaged over
    positions, and the teacher's likewise ``t``::

        x[i] = BatchNorm(1x1 convolution of s[i])                     # to the common width
        y[i] = f[i + 1], enlarged to the size of s[i]
        u, v = sigmoid(1x1 convolution of x[i] and y[i])              # two maps of attention
        f[i] = u * x[i] + v * y[i]                                    # f[n + 1] = x[n + 1]
        r[i] = BatchNorm(3x3 convolution of f[i])                     # to the teacher's width
        loss[i] = HCL(r[i], t[i])

    The hierarchical context loss compares maps at their own size and pooled to 4 x 4, 2 x 2 and 1 x 1, as far as these
    are smaller::

        HCL(r, t) = (mse(r, t) + 1/2 mse(r, t pooled) + 1/4 mse(r, t pooled smaller) + ...) / (1 + 1/2 + 1/4 + ...)

    Each stage is a layer, and ``NAME-pooled`` is the one of the averaged features. The target is the teacher's whole
    map of each stage, ``[batch, channel, height, width]``, and its averaged features, ``[batch, channel, 1, 1]``. Fused
    maps are brought to the teacher's size by nearest neighbours, to its width by the last convolution. The common
    width is that of the student's deepest features, 512 at most, as in the authors' code for CIFAR (for ImageNet: 512
    for a ResNet-18, 256 for a MobileNet). Several stages of one student learn together, so
    ``taps`` has to name them from shallow to deep.

    Stages are read before their activation function, averaged features behind it.

    Source: Chen et al. 2021, *Distilling knowledge via knowledge review* (CVPR, arXiv:2104.09044), section 3, and the
    authors' code: what is read and where it is for ImageNet (for CIFAR, the student's stages are read behind the
    activation, or as bare sums); the weights of the context loss and the first weights of the convolutions. For CIFAR
    the authors raise the loss's weight over the first 20 of 240 epochs from 0, ``schedule: {warm_up: 0.083}``, and use
    weights from 0.6 to 8; for ImageNet 1 (ResNet-18) or 8 (MobileNet) from the start.

    Departures: attention for the deeper map is computed before it's enlarged, which is the same. Where a channel has
    one value in the whole batch (the averaged features of one sample), BatchNorm takes its running statistics, since
    one value has no variance.

    Args:
        taps: ``auto`` (the paper: every stage), or a list of ``{student: NAME, teacher: NAME}`` from shallow to deep.
            The averaged features come on top.
    """

    target_options = ()
    before_activation: ClassVar[bool] = True

    levels: nn.ModuleDict

    def choose_pairs(self, student: Probe, teacher: Probe) -> tuple[TapPair, ...]:
        """Pair the stages, and the deepest features for the average over them."""
        (last,) = pair_last(student, teacher)
        return (*super().choose_pairs(student, teacher), replace(last, layer=f"{last.layer}-pooled"))

    def build(self, student: Probe, teacher: Probe) -> None:
        """Build a level of the review a pair."""
        deepest = self.pairs[-1]
        channels = min(MAX_CHANNELS, student[deepest.student].channels)
        self.levels = nn.ModuleDict()
        for pair in self.pairs:
            kind = _Level if pair is deepest else _FusingLevel
            widths = student[pair.student].channels, channels, teacher[pair.teacher].channels
            self.levels[key(pair.layer)] = kind(*widths)

    def layer_target(self, layer: str, teacher: Tensor) -> Tensor:
        return teacher.mean(dim=(2, 3), keepdim=True) if layer == self.layers[-1] else teacher

    def forward(self, taps: Taps, target: Target, batch: Batch) -> dict[str, Tensor]:
        """Return the context loss of every stage and of the averaged features."""
        losses = {}
        fused: Tensor | None = None
        for pair in reversed(self.pairs):
            features, wanted = widen(taps[pair.student]), widen(target[pair.layer])
            with no_autocast(features):
                if fused is None:
                    features = features.mean(dim=(2, 3), keepdim=True)
                level = self.levels[key(pair.layer)]
                fused, reviewed = level(features, fused, (wanted.shape[2], wanted.shape[3]))
                losses[pair.layer] = self.layer_loss(pair.layer, reviewed, wanted)
        return {layer: losses[layer] for layer in self.layers}

    def layer_loss(self, layer: str, student: Tensor, target: Tensor) -> Tensor:
        """Return the hierarchical context loss between two maps of one shape."""
        difference = student - target  # pooling is linear: once for both
        loss, weight, weights = difference.square().mean(), 1.0, 1.0
        for size in CONTEXTS:
            if size < min(difference.shape[2:]):
                weight /= 2
                weights += weight
                loss = loss + weight * F.adaptive_avg_pool2d(difference, size).square().mean()
        return loss / weights


class _Level(nn.Module):
    """A level of the review: into the common width, and out of it to the teacher's.

    Args:
        in_channels: width of the student's map.
        channels: the common width.
        out_channels: width of the teacher's map.
    """

    def __init__(self, in_channels: int, channels: int, out_channels: int) -> None:
        super().__init__()
        entry = nn.Conv2d(in_channels, channels, kernel_size=1, bias=False)
        last = nn.Conv2d(channels, out_channels, kernel_size=3, padding=1, bias=False)
        for convolution in (entry, last):
            nn.init.kaiming_uniform_(convolution.weight, a=1)
        self.entry = nn.Sequential(entry, _BatchNorm(channels))
        self.exit = nn.Sequential(last, _BatchNorm(out_channels))

    def forward(self, features: Tensor, deeper: Tensor | None, size: tuple[int, int]) -> tuple[Tensor, Tensor]:
        """Return the fused map for the next level, and what is compared with the teacher; both of the given size.

        Args:
            features: the student's map, ``[batch, in_channels, height, width]``.
            deeper: the fused map of the level below, ``[batch, channels, ...]``; ``None`` at the deepest.
            size: height and width of the teacher's map.
        """
        fused = _resize(self.fuse(self.entry(features), deeper), size)
        return fused, self.exit(fused)

    def fuse(self, own: Tensor, deeper: Tensor | None) -> Tensor:
        """Combine two maps of the common width; at the deepest level there is nothing to combine with."""
        return own


class _FusingLevel(_Level):
    """A level that weighs its own map and the deeper one position by position."""

    def __init__(self, in_channels: int, channels: int, out_channels: int) -> None:
        super().__init__(in_channels, channels, out_channels)
        self.attention = nn.Conv2d(2 * channels, 2, 1)

    def fuse(self, own: Tensor, deeper: Tensor | None) -> Tensor:
        assert deeper is not None
        size = (own.shape[2], own.shape[3])
        by_own, by_deeper = self.attention.weight.chunk(2, dim=1)
        scores = F.conv2d(own, by_own) + _resize(F.conv2d(deeper, by_deeper, self.attention.bias), size)
        weights = torch.sigmoid(scores)  # [batch, 2, height, width]
        return own * weights[:, :1] + _resize(deeper, size) * weights[:, 1:]


class _BatchNorm(nn.BatchNorm2d):
    """BatchNorm that normalises a single value a channel by its running statistics."""

    def forward(self, input: Tensor) -> Tensor:
        if self.training and input.numel() == input.shape[1]:
            return F.batch_norm(input, self.running_mean, self.running_var, self.weight, self.bias, eps=self.eps)
        return super().forward(input)


def _resize(maps: Tensor, size: tuple[int, int]) -> Tensor:
    return maps if maps.shape[2:] == size else F.interpolate(maps, size, mode="nearest")
