"""torchvision's residual networks, with a stem for 32x32 images."""

# ruff: noqa: N802  (the factories are named as the models that they make)

from __future__ import annotations

from collections.abc import Callable

from torch import nn

from distill.late import models
from distill.models.base import check_sizes


def CifarResNet18(*, num_classes: int, in_channels: int = 3) -> nn.Module:
    """Make torchvision's ResNet-18 with a 3x3 stem of stride 1 and without the pooling after it."""
    return _for_small_images(models.resnet18, num_classes, in_channels)


def CifarResNet34(*, num_classes: int, in_channels: int = 3) -> nn.Module:
    """Make torchvision's ResNet-34 with a 3x3 stem of stride 1 and without the pooling after it."""
    return _for_small_images(models.resnet34, num_classes, in_channels)


def CifarResNet50(*, num_classes: int, in_channels: int = 3) -> nn.Module:
    """Make torchvision's ResNet-50 with a 3x3 stem of stride 1 and without the pooling after it."""
    return _for_small_images(models.resnet50, num_classes, in_channels)


def _for_small_images(factory: Callable[..., models.ResNet], num_classes: int, in_channels: int) -> nn.Module:
    """Replace the stem that divides the resolution by four; ``layer1`` to ``layer4`` then have stride 1, 2, 4, 8."""
    check_sizes(num_classes=num_classes, in_channels=in_channels)
    model: nn.Module = factory(num_classes=num_classes)
    model.conv1 = nn.Conv2d(in_channels, 64, kernel_size=3, padding=1, bias=False)
    nn.init.kaiming_normal_(model.conv1.weight, mode="fan_out", nonlinearity="relu")
    model.maxpool = nn.Identity()
    return model
