"""FCOS with distributions of the sides of boxes, on any backbone."""

from __future__ import annotations

from typing import Any

from torch import nn

from distill.models.distribution_head import DistributionHead
from distill.models.fcos import FCOS


def DistributionFCOS(  # noqa: N802
    backbone: nn.Module,
    *,
    num_classes: int,
    in_channels: int = 3,
    width: int = 64,
    strides: tuple[int, ...] = (8, 16, 32, 64, 128),
    num_bins: int = 17,
    anchor_scale: float = 1.0,
    depth: int = 4,
    center_sampling_radius: float = 1.5,
    score_thresh: float = 0.05,
    nms_thresh: float = 0.6,
    detections_per_img: int = 100,
    topk_candidates: int = 1000,
) -> nn.Module:
    """Make an FCOS that says of each side of a box how likely each distance is, which the path ``LD`` distils.

    It is :func:`distill.models.FCOS` but for its :class:`~distill.models.distribution_head.DistributionHead`; it is not
    the whole Generalized Focal Loss of Li et al. 2020 (arXiv:2006.04388).

    Args:
        backbone: a classification network (:class:`distill.models.backbone.Backbone`); its classifier is left out.
        num_classes: number of classes, with the background.
        in_channels: channels of the images.
        width: channels of the pyramid and the head, a multiple of 32.
        strides: of the pyramid's levels, in pixels; small images need finer ones.
        num_bins: distances of a side, from 0 to ``num_bins - 1`` anchor sides; no object is found whose sides lie
            farther from a place of the coarsest level.
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
    model: Any = FCOS(
        backbone,
        num_classes=num_classes,
        in_channels=in_channels,
        width=width,
        strides=strides,
        anchor_scale=anchor_scale,
        depth=depth,
        center_sampling_radius=center_sampling_radius,
        score_thresh=score_thresh,
        nms_thresh=nms_thresh,
        detections_per_img=detections_per_img,
        topk_candidates=topk_candidates,
    )
    model.head = DistributionHead(model.head, num_bins)
    found: nn.Module = model
    return found
