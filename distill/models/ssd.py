"""SSD on any backbone."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import nn

from distill.late import models
from distill.models.backbone import Backbone
from distill.models.base import check_sizes
from distill.models.extended import Extended

SIZE = (300, 300)
"""What torchvision's own resizing would make of images; data sets have resized them before."""


def SSD(  # noqa: N802
    backbone: nn.Module,
    *,
    num_classes: int,
    in_channels: int = 3,
    width: int = 64,
    strides: tuple[int, ...] = (8, 16, 32, 64),
    aspect_ratios: tuple[float, ...] = (2.0, 3.0),
    min_ratio: float = 0.15,
    max_ratio: float = 0.9,
    score_thresh: float = 0.01,
    nms_thresh: float = 0.45,
    detections_per_img: int = 200,
    topk_candidates: int = 400,
) -> nn.Module:
    """Make an SSD (Liu et al. 2016, arXiv:1512.02325) for object detection.

    It is torchvision's, but for the backbone. The finest map is not rescaled to a learned norm, as the paper does for
    a VGG without BatchNorm. Models with the same ``strides`` and boxes can be compared place by place where the image's
    sides are multiples of the last stride.

    Args:
        backbone: a classification network (:class:`distill.models.backbone.Backbone`); its classifier is left out.
        num_classes: number of classes, with the background.
        in_channels: channels of the images.
        width: channels of the levels that the backbone does not have.
        strides: of the levels, in pixels; extra blocks go on where the backbone ends.
        aspect_ratios: of the default boxes besides 1, each with its inverse.
        min_ratio: side of the finest level's default boxes, as a share of the image.
        max_ratio: side of the coarsest level's.
        score_thresh: least score of a detection.
        nms_thresh: overlap above which the less certain of two detections of a class goes.
        detections_per_img: most detections an image.
        topk_candidates: most detections a class before overlapping ones go.

    Returns:
        ``torchvision.models.detection.ssd.SSD``.

    Raises:
        ValueError: the network is no chain or has no such strides, or an option is wrong.
    """
    check_sizes(num_classes=num_classes, width=width)
    levels = Extended(Backbone(backbone, in_channels=in_channels), strides=strides, width=width, block=_extra_block)
    boxes = default_boxes(len(strides), aspect_ratios=aspect_ratios, min_ratio=min_ratio, max_ratio=max_ratio)
    detection = models.detection.ssd
    model: nn.Module = detection.SSD(
        levels,
        boxes,
        SIZE,
        num_classes,
        head=detection.SSDHead(levels.out_channels, boxes.num_anchors_per_location(), num_classes),
        score_thresh=score_thresh,
        nms_thresh=nms_thresh,
        detections_per_img=detections_per_img,
        topk_candidates=topk_candidates,
    )
    return model


def default_boxes(num_levels: int, *, aspect_ratios: Sequence[float], min_ratio: float, max_ratio: float) -> Any:
    """Make torchvision's generator of default boxes.

    Raises:
        ValueError: the shares of the image are not in order within 0..1, or an aspect ratio is not above 0.
    """
    if not 0 < min_ratio < max_ratio <= 1:
        raise ValueError(f"min_ratio must be above 0 and below max_ratio {max_ratio!r}, at most 1, found {min_ratio!r}")
    if any(ratio <= 0 for ratio in aspect_ratios):
        raise ValueError(f"aspect_ratios must be above 0, found {list(aspect_ratios)}")
    return models.detection.anchor_utils.DefaultBoxGenerator(
        [list(aspect_ratios) for _ in range(num_levels)], min_ratio=min_ratio, max_ratio=max_ratio
    )


def _extra_block(in_channels: int, out_channels: int) -> nn.Module:
    """Halve the map: the paper's 1x1 convolution to half the channels, then 3x3 of stride 2."""
    inner = max(1, out_channels // 2)
    return nn.Sequential(
        nn.Conv2d(in_channels, inner, kernel_size=1),
        nn.ReLU(),
        nn.Conv2d(inner, out_channels, kernel_size=3, stride=2, padding=1),
        nn.ReLU(),
    )
