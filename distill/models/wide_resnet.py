"""Wide residual networks for 32x32 images."""

# ruff: noqa: N802  (the factories are named as the models that they make)

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from distill.models.base import blocks_per_stage, check_sizes, initialise_convolutions


class WideResNet(nn.Module):
    """Pre-activation residual network WRN-depth-widen (Zagoruyko and Komodakis 2016, arXiv:1605.07146).

    ``layer1`` keeps the image's size, ``layer2`` and ``layer3`` halve it. They end before the BatchNorm and ReLU of
    what follows, so taps on them read sums that can be negative; ``norm`` holds the last BatchNorm and ReLU. Where the
    width changes, the shortcut is a bare 1x1 convolution of the activated input, as in the authors' code.

    Args:
        depth: number of convolutions, 6n+4 (after the authors, the stem and three shortcuts are counted).
        widen: the stages have 16, 32 and 64 times ``widen`` channels; the stem has always 16.
        num_classes: number of classes.
        in_channels: channels of the images.
        dropout: probability to drop an activation between the two convolutions of a block.

    Raises:
        ValueError: ``depth`` is not 6n+4, a size is below one, or ``dropout`` is no probability below one.
    """

    def __init__(self, *, depth: int, widen: int, num_classes: int, in_channels: int = 3, dropout: float = 0.0) -> None:
        super().__init__()
        num_blocks = blocks_per_stage(depth, outside=4)
        check_sizes(widen=widen, num_classes=num_classes, in_channels=in_channels)
        if not 0 <= dropout < 1:
            raise ValueError(f"dropout must be at least 0 and below 1, found {dropout!r}")
        self.stem = nn.Conv2d(in_channels, 16, kernel_size=3, padding=1, bias=False)
        self.layer1 = _stage(16, 16 * widen, num_blocks=num_blocks, stride=1, dropout=dropout)
        self.layer2 = _stage(16 * widen, 32 * widen, num_blocks=num_blocks, stride=2, dropout=dropout)
        self.layer3 = _stage(32 * widen, 64 * widen, num_blocks=num_blocks, stride=2, dropout=dropout)
        self.norm = nn.Sequential(nn.BatchNorm2d(64 * widen), nn.ReLU())
        self.pool = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())
        self.fc = nn.Linear(64 * widen, num_classes)
        initialise_convolutions(self)
        nn.init.zeros_(self.fc.bias)

    def forward(self, images: Tensor) -> Tensor:
        """Map images ``[batch, in_channels, height, width]`` to logits ``[batch, num_classes]``."""
        features = self.norm(self.layer3(self.layer2(self.layer1(self.stem(images)))))
        logits: Tensor = self.fc(self.pool(features))
        return logits


class _Block(nn.Module):
    """BatchNorm, ReLU and 3x3 convolution, twice, beside a shortcut."""

    def __init__(self, in_channels: int, out_channels: int, stride: int, dropout: float) -> None:
        super().__init__()
        self.bn1 = nn.BatchNorm2d(in_channels)
        self.conv1 = nn.Conv2d(in_channels, out_channels, kernel_size=3, stride=stride, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(out_channels)
        self.dropout = nn.Dropout(dropout)
        self.conv2 = nn.Conv2d(out_channels, out_channels, kernel_size=3, padding=1, bias=False)
        self.shortcut = None
        if stride != 1 or in_channels != out_channels:
            self.shortcut = nn.Conv2d(in_channels, out_channels, kernel_size=1, stride=stride, bias=False)

    def forward(self, features: Tensor) -> Tensor:
        activated = F.relu(self.bn1(features))
        residual = self.dropout(F.relu(self.bn2(self.conv1(activated))))
        shortcut = features if self.shortcut is None else self.shortcut(activated)
        total: Tensor = self.conv2(residual) + shortcut
        return total


def _stage(in_channels: int, out_channels: int, *, num_blocks: int, stride: int, dropout: float) -> nn.Sequential:
    first = _Block(in_channels, out_channels, stride, dropout)
    return nn.Sequential(first, *(_Block(out_channels, out_channels, 1, dropout) for _ in range(num_blocks - 1)))


def WRN_16_1(*, num_classes: int, in_channels: int = 3, dropout: float = 0.0) -> WideResNet:
    """Make a WRN-16-1."""
    return WideResNet(depth=16, widen=1, num_classes=num_classes, in_channels=in_channels, dropout=dropout)


def WRN_16_2(*, num_classes: int, in_channels: int = 3, dropout: float = 0.0) -> WideResNet:
    """Make a WRN-16-2."""
    return WideResNet(depth=16, widen=2, num_classes=num_classes, in_channels=in_channels, dropout=dropout)


def WRN_40_1(*, num_classes: int, in_channels: int = 3, dropout: float = 0.0) -> WideResNet:
    """Make a WRN-40-1."""
    return WideResNet(depth=40, widen=1, num_classes=num_classes, in_channels=in_channels, dropout=dropout)


def WRN_40_2(*, num_classes: int, in_channels: int = 3, dropout: float = 0.0) -> WideResNet:
    """Make a WRN-40-2."""
    return WideResNet(depth=40, widen=2, num_classes=num_classes, in_channels=in_channels, dropout=dropout)
