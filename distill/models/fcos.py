"""FCOS on any backbone."""

from __future__ import annotations

from torch import nn

from distill.late import models
from distill.models.anchors import anchor_generator
from distill.models.backbone import Backbone
from distill.models.base import check_sizes
from distill.models.pyramid import Pyramid

GROUPS = 32
"""Of the GroupNorm in torchvision's heads."""


def FCOS(  # noqa: N802
    backbone: nn.Module,
    *,
    num_classes: int,
    in_channels: int = 3,
    width: int = 64,
    strides: tuple[int, ...] = (8, 16, 32, 64, 128),
    anchor_scale: float = 1.0,
    depth: int = 4,
    center_sampling_radius: float = 1.5,
    score_thresh: float = 0.05,
    nms_thresh: float = 0.6,
    detections_per_img: int = 100,
    topk_candidates: int = 1000,
) -> nn.Module:
    """Make an FCOS (Tian et al. 2019, arXiv:1904.01355) for object detection.

    It is torchvision's, with a smaller pyramid by default (the paper's ``width`` is 256). Models with the same
    ``strides`` can be compared place by place where the image's sides are multiples of the last stride.

    Args:
        backbone: a classification network (:class:`distill.models.backbone.Backbone`); its classifier is left out.
        num_classes: number of classes, with the background.
        in_channels: channels of the images.
        width: channels of the pyramid and the head, a multiple of 32.
        strides: of the pyramid's levels, in pixels; small images need finer ones.
        anchor_scale: side of a level's one anchor, in strides; a level finds objects whose farthest side lies 4 to 8
            times as far from a place near their centre, so twice as large ones, the finest smaller ones and the
            coarsest larger ones, too.
        depth: convolutions of each head before its last one.
        center_sampling_radius: places this near to an object's centre are trained to find it, in anchor sides.
        score_thresh: least score of a detection; torchvision has 0.2, which cuts off what average precision counts.
        nms_thresh: overlap above which the less certain of two detections of a class goes.
        detections_per_img: most detections an image.
        topk_candidates: most detections a level before overlapping ones go.

    Returns:
        ``torchvision.models.detection.FCOS``.

    Raises:
        ValueError: the network is no chain or has no such strides, or an option is wrong.
    """
    check_sizes(num_classes=num_classes, depth=depth, width=width)
    if width % GROUPS:
        raise ValueError(f"width must be a multiple of {GROUPS}, the groups of the head's GroupNorm, found {width!r}")
    pyramid = Pyramid(Backbone(backbone, in_channels=in_channels), strides=strides, width=width)
    detection = models.detection.fcos
    model: nn.Module = detection.FCOS(
        pyramid,
        num_classes,
        anchor_generator=anchor_generator(strides, scale=anchor_scale, per_octave=1, aspect_ratios=(1.0,)),
        head=detection.FCOSHead(width, 1, num_classes, num_convs=depth),
        center_sampling_radius=center_sampling_radius,
        score_thresh=score_thresh,
        nms_thresh=nms_thresh,
        detections_per_img=detections_per_img,
        topk_candidates=topk_candidates,
    )
    return model
