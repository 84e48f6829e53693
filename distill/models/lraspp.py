"""Lite R-ASPP on any backbone."""

from __future__ import annotations

from torch import nn

from distill.late import models
from distill.models.backbone import Backbone
from distill.models.base import check_sizes


def LRASPP(  # noqa: N802
    backbone: nn.Module,
    *,
    num_classes: int,
    in_channels: int = 3,
    output_stride: int = 16,
    width: int = 128,
    scale: float = 1.0,
) -> nn.Module:
    """Make a Lite R-ASPP network (Howard et al. 2019, arXiv:1905.02244, section 6.4) for semantic segmentation.

    It is torchvision's: the deepest map, weighted by its mean, and a map of finer resolution are classified by 1x1
    convolutions whose sum is enlarged to the image. The finer map is that of the stage two before the deepest one.

    Args:
        backbone: a classification network (:class:`distill.models.backbone.Backbone`); its classifier is left out.
        num_classes: number of classes, with the background.
        in_channels: channels of the images.
        output_stride: rows of the image for one row of the deepest map, at most: a backbone with a finer one keeps it.
        width: channels of the head.
        scale: factor by which the images are resized before the backbone; logits have the size of the images.

    Returns:
        A model that maps images ``[batch, channel, height, width]`` to logits ``[batch, class, height, width]`` under
        ``out``.

    Raises:
        ValueError: the network is no chain or has a single stage, or an option is wrong.
    """
    check_sizes(num_classes=num_classes, width=width)
    trunk = Backbone(backbone, in_channels=in_channels, output_stride=output_stride, scale=scale)
    if len(trunk.channels) < 2:
        raise ValueError("backbone of an LRASPP must have at least 2 stages, found 1")
    low = max(len(trunk.channels) - 3, 0)
    model: nn.Module = models.segmentation.lraspp.LRASPP(
        trunk.select({"low": low, "high": -1}), trunk.channels[low], trunk.channels[-1], num_classes, width
    )
    return model
