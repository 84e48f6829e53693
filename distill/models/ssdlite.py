"""SSDLite on any backbone."""

from __future__ import annotations

from functools import partial

from torch import nn

from distill.late import models
from distill.models.backbone import Backbone
from distill.models.base import check_sizes
from distill.models.extended import Extended
from distill.models.ssd import SIZE, default_boxes

_NORM = partial(nn.BatchNorm2d, eps=0.001, momentum=0.03)
"""As torchvision has it in its SSDLite."""


def SSDLite(  # noqa: N802
    backbone: nn.Module,
    *,
    num_classes: int,
    in_channels: int = 3,
    width: int = 64,
    strides: tuple[int, ...] = (16, 32, 64, 128),
    aspect_ratios: tuple[float, ...] = (2.0, 3.0),
    min_ratio: float = 0.2,
    max_ratio: float = 0.95,
    score_thresh: float = 0.001,
    nms_thresh: float = 0.55,
    detections_per_img: int = 300,
    topk_candidates: int = 300,
) -> nn.Module:
    """Make an SSDLite (Sandler et al. 2018, arXiv:1801.04381, section 6.2) for object detection.

    It is torchvision's, but for the backbone: an SSD whose heads and extra blocks are depthwise separable. Maps are
    taken at the end of a stage, not inside a block, as torchvision does for the first one of its MobileNetV3. Models
    with the same ``strides`` and boxes can be compared place by place where the image's sides are multiples of the last
    stride.

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
    model: nn.Module = models.detection.ssd.SSD(
        levels,
        boxes,
        SIZE,
        num_classes,
        head=models.detection.ssdlite.SSDLiteHead(
            levels.out_channels,
            boxes.num_anchors_per_location(),
            num_classes,
            _NORM,
        ),
        score_thresh=score_thresh,
        nms_thresh=nms_thresh,
        detections_per_img=detections_per_img,
        topk_candidates=topk_candidates,
    )
    return model


def _extra_block(in_channels: int, out_channels: int) -> nn.Module:
    """Halve the map: 1x1 to half the channels, depthwise 3x3 of stride 2, 1x1."""
    inner = max(1, out_channels // 2)
    block = nn.Sequential(
        nn.Conv2d(in_channels, inner, kernel_size=1, bias=False),
        _NORM(inner),
        nn.ReLU6(),
        nn.Conv2d(inner, inner, kernel_size=3, stride=2, padding=1, groups=inner, bias=False),
        _NORM(inner),
        nn.ReLU6(),
        nn.Conv2d(inner, out_channels, kernel_size=1, bias=False),
        _NORM(out_channels),
        nn.ReLU6(),
    )
    for layer in block.children():
        if isinstance(layer, nn.Conv2d):
            nn.init.normal_(layer.weight, std=0.03)
    return block
