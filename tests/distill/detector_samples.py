"""Small detectors of torchvision's classes, and scenes for them; their own transform changes nothing."""

from __future__ import annotations

from collections import OrderedDict

import torch
from torch import nn
from torchvision.models import detection
from torchvision.models.detection.anchor_utils import AnchorGenerator, DefaultBoxGenerator
from torchvision.ops import FeaturePyramidNetwork, MultiScaleRoIAlign

from distill.batch import Batch
from distill.models.distribution_head import DistributionHead
from distill.objects import Objects

HEIGHT, WIDTH = 64, 96
CLASSES = ("__background__", "square", "wide", "tall")
PLACES = [(16, 24), (8, 12), (4, 6)]
RATIOS = (0.5, 1.0, 2.0)
UNCHANGED = {
    "min_size": HEIGHT,
    "max_size": WIDTH,
    "fixed_size": (WIDTH, HEIGHT),
    "size_divisible": 1,
    "image_mean": [0.0] * 3,
    "image_std": [1.0] * 3,
}


class Body(nn.Module):
    """Maps of 1/4, 1/8 and 1/16 of the image's size, with BatchNorm."""

    def __init__(self, width):
        super().__init__()
        self.stage1 = nn.Sequential(block(3, width), block(width, width))
        self.stage2 = block(width, width)
        self.stage3 = block(width, width)
        self.out_channels = [width] * 3

    def forward(self, images):
        first = self.stage1(images)
        second = self.stage2(first)
        return OrderedDict([("0", first), ("1", second), ("2", self.stage3(second))])


class Pyramid(nn.Module):
    """A body and a feature pyramid of 32 channels."""

    def __init__(self, width):
        super().__init__()
        self.body = Body(width)
        self.fpn = FeaturePyramidNetwork(self.body.out_channels, 32)
        self.out_channels = 32

    def forward(self, images):
        return self.fpn(self.body(images))


def block(channels, width):
    return nn.Sequential(nn.Conv2d(channels, width, 3, 2, 1, bias=False), nn.BatchNorm2d(width), nn.ReLU())


def retinanet(width=8, num_classes=4):
    anchors = AnchorGenerator(((8,), (16,), (32,)), (RATIOS,) * 3)
    return detection.RetinaNet(Pyramid(width), num_classes, anchor_generator=anchors, score_thresh=0.02, **UNCHANGED)


def fcos(width=8, num_classes=4):
    anchors = AnchorGenerator(((4,), (8,), (16,)), ((1.0,),) * 3)
    return detection.FCOS(Pyramid(width), num_classes, anchor_generator=anchors, score_thresh=0.02, **UNCHANGED)


def distribution_fcos(width=8, num_classes=4):
    model = fcos(width, num_classes)
    model.head = DistributionHead(model.head, num_bins=6)
    return model


def ssd(width=8, num_classes=4):
    anchors = DefaultBoxGenerator([[2], [2], [2]], scales=[0.1, 0.25, 0.5, 0.8])
    normalised = {"image_mean": [0.0] * 3, "image_std": [1.0] * 3}
    return detection.ssd.SSD(Body(width), anchors, (WIDTH, HEIGHT), num_classes, score_thresh=0.2, **normalised)


def faster_rcnn(width=8, num_classes=4):
    return detection.FasterRCNN(
        Pyramid(width),
        rpn_anchor_generator=AnchorGenerator(((8,), (16,), (32,)), (RATIOS,) * 3),
        box_roi_pool=MultiScaleRoIAlign(["0", "1", "2"], 3, 2),
        box_head=detection.faster_rcnn.TwoMLPHead(32 * 9, 16),
        box_predictor=detection.faster_rcnn.FastRCNNPredictor(16, num_classes),
        rpn_post_nms_top_n_train=60,
        rpn_post_nms_top_n_test=40,
        rpn_batch_size_per_image=32,
        box_batch_size_per_image=24,
        **UNCHANGED,
    )


MAKERS = {
    "RetinaNet": retinanet,
    "FCOS": fcos,
    "DistributionFCOS": distribution_fcos,
    "SSD": ssd,
    "FasterRCNN": faster_rcnn,
}


def make(family, seed=0, **options):
    """Return a detector whose heads, too, start from weights that say something."""
    torch.manual_seed(seed)
    model = MAKERS[family](**options)
    for name, parameter in model.named_parameters():
        if "backbone" not in name and parameter.dim() > 1:
            nn.init.normal_(parameter, std=0.1)
    return model


def scenes(number=3, seed=0, empty=()):
    """Return a batch of noise with bright rectangles; images in ``empty`` have none, and each first one a crowd."""
    generator = torch.Generator().manual_seed(seed)
    images = 0.3 * torch.randn(number, 3, HEIGHT, WIDTH, generator=generator)
    labelled = []
    for image in range(number):
        boxes, labels = [], []
        for label in () if image in empty else (1, 2, 3):
            height, width = {1: (16, 16), 2: (10, 24), 3: (24, 10)}[label]
            top = int(torch.randint(HEIGHT - height, (), generator=generator))
            left = int(torch.randint(WIDTH - width, (), generator=generator))
            images[image, label - 1, top : top + height, left : left + width] += 2
            boxes.append([left, top, left + width, top + height])
            labels.append(label)
        ignored = torch.zeros(len(labels), dtype=torch.bool)
        if labels and image == 0:
            ignored[0] = True
        labelled.append((torch.tensor(boxes).reshape(-1, 4).float(), torch.tensor(labels).long(), ignored))
    return Batch(images, Objects.of(labelled), torch.arange(number))
