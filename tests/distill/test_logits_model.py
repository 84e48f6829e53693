"""A model behind its logits."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from distill.tasks import Classification, SemanticSegmentation
from distill.tasks.logits_model import LogitsModel


class Halved(nn.Module):
    """Logits of half the image's size, in a mapping."""

    def __init__(self):
        super().__init__()
        self.head = nn.Sequential(nn.Conv2d(3, 4, 3, stride=2, padding=1), nn.BatchNorm2d(4), nn.Conv2d(4, 2, 1))

    def forward(self, images):
        return {"out": self.head(images), "aux": None}


@pytest.mark.parametrize("is_training", [True, False])
def test_it_is_in_the_mode_of_its_model(is_training):
    model = nn.Linear(2, 2).train(is_training)
    assert LogitsModel(model, lambda module, images: module(images), lambda output: output).training is is_training


def test_classifiers_are_exported_as_they_are():
    model = nn.Linear(2, 2)
    assert Classification().exported(model) is model


def test_segmentation_exports_logits_of_the_size_of_the_images():
    torch.manual_seed(0)
    model = Halved().eval()
    images = torch.randn(2, 3, 8, 12)
    logits = SemanticSegmentation().exported(model)(images)
    small = model(images)["out"]
    assert small.shape == (2, 2, 4, 6)
    torch.testing.assert_close(logits, nn.Upsample(size=(8, 12), mode="bilinear", align_corners=False)(small))
