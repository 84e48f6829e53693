"""The small residual networks for 32x32 images."""

# ruff: noqa: N802  (the factories are named as the models that they make)

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from distill.models.base import blocks_per_stage, check_sizes, initialise_convolutions


class ResNet(nn.Module):
    """Residual network of three stages with two-convolution blocks (He et al. 2016, arXiv:1512.03385, section 4.2).

    The map keeps the image's size in ``stem`` and ``layer1``, and is halved by ``layer2`` and again by ``layer3``. Each
    of these ends with a ReLU, so that a tap on it reads what the next stage sees. Departure from the paper, as in
    RepDistiller (https://github.com/HobbitLong/RepDistiller): where the width or the stride changes, the shortcut is a
    1x1 convolution with BatchNorm (option B) instead of padding with zeros (option A).

    Args:
        depth: number of layers with weights, 6n+2 (a shortcut's convolution is not counted).
        widths: channels of the stem and of the three stages.
        num_classes: number of classes.
        in_channels: channels of the images.

    Raises:
        ValueError: ``depth`` is not 6n+2, or a size is below one.
    """

    def __init__(
        self, *, depth: int, widths: tuple[int, int, int, int], num_classes: int, in_channels: int = 3
    ) -> None:
        super().__init__()
        num_blocks = blocks_per_stage(depth, outside=2)
        check_sizes(width=min(widths), num_classes=num_classes, in_channels=in_channels)
        self.stem = nn.Sequential(
            nn.Conv2d(in_channels, widths[0], kernel_size=3, padding=1, bias=False),
            nn.BatchNorm2d(widths[0]),
            nn.ReLU(),
        )
        self.layer1 = _stage(widths[0], widths[1], num_blocks=num_blocks, stride=1)
        self.layer2 = _stage(widths[1], widths[2], num_blocks=num_blocks, stride=2)
        self.layer3 = _stage(widths[2], widths[3], num_blocks=num_blocks, stride=2)
        self.pool = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())
        self.fc = nn.Linear(widths[3], num_classes)
        initialise_convolutions(self)

    def forward(self, images: Tensor) -> Tensor:
        """Map images ``[batch, in_channels, height, width]`` to logits ``[batch, num_classes]``."""
        features = self.layer3(self.layer2(self.layer1(self.stem(images))))
        logits: Tensor = self.fc(self.pool(features))
        return logits


class _Block(nn.Module):
    """Two 3x3 convolutions beside a shortcut, ReLU after their sum."""

    def __init__(self, in_channels: int, out_channels: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, out_channels, kernel_size=3, stride=stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(out_channels)
        self.conv2 = nn.Conv2d(out_channels, out_channels, kernel_size=3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(out_channels)
        self.relu = nn.ReLU()  # a module, so that a tap can read what enters it
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or in_channels != out_channels:
            self.shortcut = nn.Sequential(
                nn.Conv2d(in_channels, out_channels, kernel_size=1, stride=stride, bias=False),
                nn.BatchNorm2d(out_channels),
            )

    def forward(self, features: Tensor) -> Tensor:
        residual = F.relu(self.bn1(self.conv1(features)))
        total: Tensor = self.relu(self.bn2(self.conv2(residual)) + self.shortcut(features))
        return total


def _stage(in_channels: int, out_channels: int, *, num_blocks: int, stride: int) -> nn.Sequential:
    first = _Block(in_channels, out_channels, stride)
    return nn.Sequential(first, *(_Block(out_channels, out_channels, 1) for _ in range(num_blocks - 1)))


def ResNet8(*, num_classes: int, in_channels: int = 3, width: int = 16) -> ResNet:
    """Make a ResNet-8 whose stages have ``width``, twice and four times ``width`` channels."""
    return _slim(8, width, num_classes, in_channels)


def ResNet14(*, num_classes: int, in_channels: int = 3, width: int = 16) -> ResNet:
    """Make a ResNet-14 whose stages have ``width``, twice and four times ``width`` channels."""
    return _slim(14, width, num_classes, in_channels)


def ResNet20(*, num_classes: int, in_channels: int = 3, width: int = 16) -> ResNet:
    """Make a ResNet-20 whose stages have ``width``, twice and four times ``width`` channels."""
    return _slim(20, width, num_classes, in_channels)


def ResNet32(*, num_classes: int, in_channels: int = 3, width: int = 16) -> ResNet:
    """Make a ResNet-32 whose stages have ``width``, twice and four times ``width`` channels."""
    return _slim(32, width, num_classes, in_channels)


def ResNet56(*, num_classes: int, in_channels: int = 3, width: int = 16) -> ResNet:
    """Make a ResNet-56 whose stages have ``width``, twice and four times ``width`` channels."""
    return _slim(56, width, num_classes, in_channels)


def ResNet8x4(*, num_classes: int, in_channels: int = 3) -> ResNet:
    """Make RepDistiller's resnet8x4: stem of 32 channels, stages of 64, 128 and 256."""
    return ResNet(depth=8, widths=(32, 64, 128, 256), num_classes=num_classes, in_channels=in_channels)


def ResNet32x4(*, num_classes: int, in_channels: int = 3) -> ResNet:
    """Make RepDistiller's resnet32x4: stem of 32 channels, stages of 64, 128 and 256."""
    return ResNet(depth=32, widths=(32, 64, 128, 256), num_classes=num_classes, in_channels=in_channels)


def _slim(depth: int, width: int, num_classes: int, in_channels: int) -> ResNet:
    check_sizes(width=width)
    return ResNet(
        depth=depth, widths=(width, width, 2 * width, 4 * width), num_classes=num_classes, in_channels=in_channels
    )
