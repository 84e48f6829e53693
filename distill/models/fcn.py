"""Fully convolutional networks on any backbone."""

from __future__ import annotations

from torch import nn

from distill.late import models
from distill.models.backbone import Backbone
from distill.models.base import check_sizes


def FCN(  # noqa: N802
    backbone: nn.Module,
    *,
    num_classes: int,
    in_channels: int = 3,
    output_stride: int = 8,
    width: int | None = None,
    auxiliary: bool = False,
    scale: float = 1.0,
) -> nn.Module:
    """Make a fully convolutional network (Long et al. 2015, arXiv:1411.4038) for semantic segmentation.

    It is torchvision's FCN: a 3x3 convolution with BatchNorm and ReLU, dropout, and a 1x1 convolution on the deepest
    map of a dilated backbone, enlarged to the image. There are no skips to finer maps, as the paper's FCN-8s has.

    Args:
        backbone: a classification network (:class:`distill.models.backbone.Backbone`); its classifier is left out.
        num_classes: number of classes, with the background.
        in_channels: channels of the images.
        output_stride: rows of the image for one row of the deepest map, at most: a backbone with a finer one keeps it.
        width: channels of the head; ``None``: a quarter of the backbone's, as torchvision has it.
        auxiliary: whether the map before the deepest gets a head of its own, which only training uses.
        scale: factor by which the images are resized before the backbone; logits have the size of the images.

    Returns:
        A model that maps images ``[batch, channel, height, width]`` to logits ``[batch, class, height, width]`` under
        ``out``, and under ``aux`` those of the auxiliary head where there is one.

    Raises:
        ValueError: the network is no chain, or an option is wrong.
    """
    check_sizes(num_classes=num_classes)
    trunk = Backbone(backbone, in_channels=in_channels, output_stride=output_stride, scale=scale)
    head = fcn_head(trunk.channels[-1], num_classes, width)
    model: nn.Module = models.segmentation.fcn.FCN(
        trunk.select(heads_at(trunk, auxiliary)), head, auxiliary_head(trunk, num_classes, auxiliary)
    )
    return model


def fcn_head(in_channels: int, num_classes: int, width: int | None = None) -> nn.Module:
    """Make torchvision's head of an FCN, with ``width`` channels inside; by default a quarter of ``in_channels``."""
    width = max(1, in_channels // 4) if width is None else width
    check_sizes(width=width)
    head: nn.Module = models.segmentation.fcn.FCNHead(4 * width, num_classes)
    if in_channels != 4 * width:
        head[0] = nn.Conv2d(in_channels, width, kernel_size=3, padding=1, bias=False)  # type: ignore[operator]
    return head


def heads_at(trunk: Backbone, auxiliary: bool) -> dict[str, int]:
    """Return which stages torchvision's segmentation models read, by the name under which they do.

    Raises:
        ValueError: an auxiliary head is asked for, and there is no stage for it.
    """
    if auxiliary and len(trunk.channels) < 2:
        raise ValueError("auxiliary needs a backbone of at least 2 stages, found 1")
    return {"out": -1, "aux": -2} if auxiliary else {"out": -1}


def auxiliary_head(trunk: Backbone, num_classes: int, auxiliary: bool) -> nn.Module | None:
    """Make the head that only training uses, where it is asked for."""
    return fcn_head(trunk.channels[-2], num_classes) if auxiliary else None
