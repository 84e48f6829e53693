"""RetinaNet on any backbone."""

from __future__ import annotations

from functools import partial

from torch import nn

from distill.late import models
from distill.models.anchors import anchor_generator
from distill.models.backbone import Backbone
from distill.models.base import check_sizes
from distill.models.pyramid import Pyramid

MAX_DEPTH = 4
"""Convolutions of torchvision's heads."""


def RetinaNet(  # noqa: N802
    backbone: nn.Module,
    *,
    num_classes: int,
    in_channels: int = 3,
    width: int = 64,
    strides: tuple[int, ...] = (8, 16, 32, 64, 128),
    anchor_scale: float = 4.0,
    anchors_per_octave: int = 3,
    aspect_ratios: tuple[float, ...] = (0.5, 1.0, 2.0),
    depth: int = 4,
    groups: int = 0,
    score_thresh: float = 0.05,
    nms_thresh: float = 0.5,
    detections_per_img: int = 300,
    topk_candidates: int = 1000,
) -> nn.Module:
    """Make a RetinaNet (Lin et al. 2017, arXiv:1708.02002) for object detection.

    It is torchvision's, with a smaller pyramid by default (the paper's ``width`` is 256). Models with the same
    ``strides`` and anchors can be compared place by place where the image's sides are multiples of the last stride.

    Args:
        backbone: a classification network (:class:`distill.models.backbone.Backbone`); its classifier is left out.
        num_classes: number of classes, with the background.
        in_channels: channels of the images.
        width: channels of the pyramid and the head.
        strides: of the pyramid's levels, in pixels; small images need finer ones.
        anchor_scale: side of a level's smallest anchor, in strides.
        anchors_per_octave: number of sides a level, spread over a factor of two.
        aspect_ratios: height by width of the anchors.
        depth: convolutions of each head before its last one, up to the paper's 4.
        groups: of the GroupNorm behind each of them; 0: none, as in the paper.
        score_thresh: least score of a detection.
        nms_thresh: overlap above which the less certain of two detections of a class goes.
        detections_per_img: most detections an image.
        topk_candidates: most detections a level before overlapping ones go.

    Returns:
        ``torchvision.models.detection.RetinaNet``.

    Raises:
        ValueError: the network is no chain or has no such strides, or an option is wrong.
    """
    check_sizes(num_classes=num_classes, width=width, depth=depth)
    if depth > MAX_DEPTH:
        raise ValueError(f"depth must be at most {MAX_DEPTH}, found {depth!r}")
    if groups < 0 or (groups and width % groups):
        raise ValueError(f"groups must be 0 or divide width {width}, found {groups!r}")
    pyramid = Pyramid(Backbone(backbone, in_channels=in_channels), strides=strides, width=width)
    anchors = anchor_generator(strides, scale=anchor_scale, per_octave=anchors_per_octave, aspect_ratios=aspect_ratios)
    detection = models.detection.retinanet
    head = detection.RetinaNetHead(
        width,
        anchors_per_octave * len(aspect_ratios),
        num_classes,
        norm_layer=partial(nn.GroupNorm, groups) if groups else None,
    )
    for part in (head.classification_head, head.regression_head):
        part.conv = part.conv[:depth]
    model: nn.Module = detection.RetinaNet(
        pyramid,
        num_classes,
        anchor_generator=anchors,
        head=head,
        score_thresh=score_thresh,
        nms_thresh=nms_thresh,
        detections_per_img=detections_per_img,
        topk_candidates=topk_candidates,
    )
    return model
