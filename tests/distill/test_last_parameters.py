"""The last stage of models with a pyramid; that of classifiers is tested with the diagnosis."""

from __future__ import annotations

import pytest
import torch
from detector_samples import HEIGHT, WIDTH, make
from torch import nn

from distill.last_parameters import last_parameters
from distill.models import SSD, ResNet8, RetinaNet
from distill.tasks import Detection


def last_of(model: nn.Module) -> list[nn.Parameter]:
    return last_parameters(model, Detection().probe(model, torch.zeros(2, 3, HEIGHT, WIDTH)))


@pytest.mark.parametrize("family", ["RetinaNet", "FCOS", "FasterRCNN"])
def test_a_feature_pyramid_is_the_last_part_of_its_backbone(family):
    model = make(family)
    assert [id(each) for each in last_of(model)] == [id(each) for each in model.backbone.fpn.parameters()]


def test_levels_behind_a_feature_pyramid_do_not_stand_for_all():
    model = RetinaNet(ResNet8(num_classes=2, width=4), num_classes=4, width=32, strides=(4, 8, 16, 32))
    assert len(list(model.backbone.coarser.children())) > 0
    wanted = [*model.backbone.fpn.parameters(), *model.backbone.coarser.parameters()]
    assert [id(each) for each in last_of(model)] == [id(each) for each in wanted]


def test_without_a_neck_it_is_the_whole_backbone():
    for model in (make("SSD"), SSD(ResNet8(num_classes=2, width=4), num_classes=4, strides=(2, 4, 8, 16))):
        assert [id(each) for each in last_of(model)] == [id(each) for each in model.backbone.parameters()]


def test_what_is_not_trained_does_not_count():
    model = make("RetinaNet")
    model.backbone.fpn.requires_grad_(False)
    assert [id(each) for each in last_of(model)] == [id(each) for each in model.backbone.body.parameters()]
    model.backbone.requires_grad_(False)
    assert [id(each) for each in last_of(model)] == [id(each) for each in model.head.parameters()]
