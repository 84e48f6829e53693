"""Faster R-CNN on any backbone."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import nn

from distill.late import models, ops
from distill.models.anchors import anchor_generator
from distill.models.backbone import Backbone
from distill.models.base import check_sizes
from distill.models.pyramid import Pyramid


def FasterRCNN(  # noqa: N802
    backbone: nn.Module,
    *,
    num_classes: int,
    in_channels: int = 3,
    width: int = 64,
    strides: tuple[int, ...] = (4, 8, 16, 32, 64),
    anchor_scale: float = 8.0,
    aspect_ratios: tuple[float, ...] = (0.5, 1.0, 2.0),
    head_width: int = 256,
    roi_size: int = 7,
    roi_scale: int = 224,
    rpn_pre_nms_top_n_train: int = 2000,
    rpn_pre_nms_top_n_test: int = 1000,
    rpn_post_nms_top_n_train: int = 2000,
    rpn_post_nms_top_n_test: int = 1000,
    rpn_batch_size_per_image: int = 256,
    box_batch_size_per_image: int = 512,
    box_score_thresh: float = 0.05,
    box_nms_thresh: float = 0.5,
    box_detections_per_img: int = 100,
) -> nn.Module:
    """Make a Faster R-CNN (Ren et al. 2015, arXiv:1506.01497) on a feature pyramid for object detection.

    It is torchvision's, with a smaller pyramid and box head by default (256 and 1024 there). Its coarsest level is a
    convolution of stride 2, not a max pooling, and regions are looked at in all levels.

    Args:
        backbone: a classification network (:class:`distill.models.backbone.Backbone`); its classifier is left out.
        num_classes: number of classes, with the background.
        in_channels: channels of the images.
        width: channels of the pyramid.
        strides: of the pyramid's levels, in pixels.
        anchor_scale: side of a level's anchors, in strides.
        aspect_ratios: height by width of the anchors.
        head_width: channels of the two layers that look at a region.
        roi_size: rows and columns of a region as they see it.
        roi_scale: side of the regions, in pixels, that are looked at in the level of stride 16; twice as large ones are
            in the next. Small images need a smaller one.
        rpn_pre_nms_top_n_train: most likely anchors of a level in training.
        rpn_pre_nms_top_n_test: most likely anchors of a level in evaluation.
        rpn_post_nms_top_n_train: regions that are left of them when overlapping ones are gone, in training.
        rpn_post_nms_top_n_test: the same in evaluation.
        rpn_batch_size_per_image: anchors of an image whose loss is taken.
        box_batch_size_per_image: regions of an image whose loss is taken.
        box_score_thresh: least score of a detection.
        box_nms_thresh: overlap above which the less certain of two detections of a class goes.
        box_detections_per_img: most detections an image.

    Returns:
        ``torchvision.models.detection.FasterRCNN``.

    Raises:
        ValueError: the network is no chain or has no such strides, or an option is wrong.
    """
    check_sizes(num_classes=num_classes, width=width, head_width=head_width, roi_size=roi_size, roi_scale=roi_scale)
    pyramid = Pyramid(Backbone(backbone, in_channels=in_channels), strides=strides, width=width)
    detection = models.detection.faster_rcnn
    model: nn.Module = detection.FasterRCNN(
        pyramid,
        rpn_anchor_generator=anchor_generator(strides, scale=anchor_scale, per_octave=1, aspect_ratios=aspect_ratios),
        box_roi_pool=_pooling(strides, size=roi_size, scale=roi_scale),
        box_head=detection.TwoMLPHead(width * roi_size**2, head_width),
        box_predictor=detection.FastRCNNPredictor(head_width, num_classes),
        rpn_pre_nms_top_n_train=rpn_pre_nms_top_n_train,
        rpn_pre_nms_top_n_test=rpn_pre_nms_top_n_test,
        rpn_post_nms_top_n_train=rpn_post_nms_top_n_train,
        rpn_post_nms_top_n_test=rpn_post_nms_top_n_test,
        rpn_batch_size_per_image=rpn_batch_size_per_image,
        box_batch_size_per_image=box_batch_size_per_image,
        box_score_thresh=box_score_thresh,
        box_nms_thresh=box_nms_thresh,
        box_detections_per_img=box_detections_per_img,
    )
    return model


def _pooling(strides: Sequence[int], *, size: int, scale: int) -> Any:
    """Make what looks at a region, with the levels' scales.

    Left to itself, torchvision guesses them from the sizes of the first images and maps, on small images wrongly.
    """
    pooling: Any = ops.MultiScaleRoIAlign(
        [str(level) for level in range(len(strides))], size, sampling_ratio=2, canonical_scale=scale
    )
    pooling.scales = [1 / stride for stride in strides]
    pooling.map_levels = ops.poolers.initLevelMapper(
        strides[0].bit_length() - 1, strides[-1].bit_length() - 1, canonical_scale=scale
    )
    return pooling
