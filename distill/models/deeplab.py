"""DeepLabV3 on any backbone."""

from __future__ import annotations

from torch import nn

from distill.late import models
from distill.models.backbone import Backbone
from distill.models.base import check_sizes
from distill.models.fcn import auxiliary_head, heads_at


def DeepLabV3(  # noqa: N802
    backbone: nn.Module,
    *,
    num_classes: int,
    in_channels: int = 3,
    output_stride: int = 8,
    width: int = 256,
    atrous_rates: tuple[int, ...] = (12, 24, 36),
    auxiliary: bool = False,
    scale: float = 1.0,
) -> nn.Module:
    """Make a DeepLabV3 (Chen et al. 2017, arXiv:1706.05587) for semantic segmentation.

    It is torchvision's: atrous spatial pyramid pooling and a 3x3 convolution on the deepest map of a dilated backbone,
    enlarged to the image. Its pooling over the whole map needs batches of at least two images in training.

    Args:
        backbone: a classification network (:class:`distill.models.backbone.Backbone`); its classifier is left out.
        num_classes: number of classes, with the background.
        in_channels: channels of the images.
        output_stride: rows of the image for one row of the deepest map, at most: a backbone with a finer one keeps it.
        width: channels of the head.
        atrous_rates: dilations of the head's 3x3 convolutions, in places of the deepest map; the paper has
            (6, 12, 18) at ``output_stride`` 16 and twice these at 8. Small images need smaller ones.
        auxiliary: whether the map before the deepest gets an FCN's head of its own, which only training uses.
        scale: factor by which the images are resized before the backbone; logits have the size of the images.

    Returns:
        A model that maps images ``[batch, channel, height, width]`` to logits ``[batch, class, height, width]`` under
        ``out``, and under ``aux`` those of the auxiliary head where there is one.

    Raises:
        ValueError: the network is no chain, or an option is wrong.
    """
    check_sizes(num_classes=num_classes, width=width)
    if not atrous_rates or min(atrous_rates) < 1:
        raise ValueError(f"atrous_rates must be whole numbers of at least 1, found {list(atrous_rates)}")
    trunk = Backbone(backbone, in_channels=in_channels, output_stride=output_stride, scale=scale)
    head = nn.Sequential(  # torchvision's DeepLabHead, which has 256 channels
        models.segmentation.deeplabv3.ASPP(trunk.channels[-1], atrous_rates, width),
        nn.Conv2d(width, width, kernel_size=3, padding=1, bias=False),
        nn.BatchNorm2d(width),
        nn.ReLU(),
        nn.Conv2d(width, num_classes, kernel_size=1),
    )
    model: nn.Module = models.segmentation.deeplabv3.DeepLabV3(
        trunk.select(heads_at(trunk, auxiliary)), head, auxiliary_head(trunk, num_classes, auxiliary)
    )
    return model
