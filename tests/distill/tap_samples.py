"""What the tests of taps share: small models, and torchvision's on the meta device with the stages they should have."""

from contextlib import ExitStack, contextmanager
from unittest import mock

import torch
import torchvision
from torch import nn

SAMPLE = torch.zeros(2, 3, 16, 16)

# What a reader of the papers would call the stages: name, channels, rows at 224 pixels (299 for Inception).
STAGES = {
    "alexnet": [("features.1", 64, 55), ("features.4", 192, 27), ("features.11", 256, 13), ("features", 256, 6)],
    "convnext_tiny": [("features.1", 96, 56), ("features.3", 192, 28), ("features.5", 384, 14), ("features", 768, 7)],
    "densenet121": [
        ("features.denseblock1", 256, 56),
        ("features.denseblock2", 512, 28),
        ("features.denseblock3", 1024, 14),
        ("features.denseblock4", 1024, 7),
    ],
    "efficientnet_b0": [
        ("features.1", 16, 112),
        ("features.2", 24, 56),
        ("features.3", 40, 28),
        ("features.5", 112, 14),
        ("features", 1280, 7),
    ],
    "efficientnet_v2_s": [
        ("features.1", 24, 112),
        ("features.2", 48, 56),
        ("features.3", 64, 28),
        ("features.5", 160, 14),
        ("features", 1280, 7),
    ],
    "googlenet": [("inception3b", 480, 28), ("inception4e", 832, 14), ("inception5b", 1024, 7)],
    "inception_v3": [("Mixed_5d", 288, 35), ("Mixed_6e", 768, 17), ("Mixed_7c", 2048, 8)],
    "maxvit_t": [
        ("stem", 64, 112),
        ("blocks.0", 64, 56),
        ("blocks.1", 128, 28),
        ("blocks.2", 256, 14),
        ("blocks.3", 512, 7),
    ],
    "mnasnet1_0": [("layers.8", 24, 56), ("layers.9", 40, 28), ("layers.11", 96, 14), ("layers", 1280, 7)],
    "mobilenet_v2": [
        ("features.1", 16, 112),
        ("features.3", 24, 56),
        ("features.6", 32, 28),
        ("features.13", 96, 14),
        ("features", 1280, 7),
    ],
    "mobilenet_v3_small": [
        ("features.1", 16, 56),
        ("features.3", 24, 28),
        ("features.8", 48, 14),
        ("features", 576, 7),
    ],
    "regnet_y_400mf": [
        ("trunk_output.block1", 48, 56),
        ("trunk_output.block2", 104, 28),
        ("trunk_output.block3", 208, 14),
        ("trunk_output", 440, 7),
    ],
    "resnet18": [("layer1", 64, 56), ("layer2", 128, 28), ("layer3", 256, 14), ("layer4", 512, 7)],
    "resnet50": [("layer1", 256, 56), ("layer2", 512, 28), ("layer3", 1024, 14), ("layer4", 2048, 7)],
    "shufflenet_v2_x1_0": [("stage2", 116, 28), ("stage3", 232, 14), ("conv5", 1024, 7)],
    "squeezenet1_1": [("features.4", 128, 55), ("features.7", 256, 27), ("features", 512, 13)],
    "swin_t": [("features.1", 96, 56), ("features.3", 192, 28), ("features.5", 384, 14), ("norm", 768, 7)],
    "swin_v2_t": [("features.1", 96, 56), ("features.3", 192, 28), ("features.5", 384, 14), ("norm", 768, 7)],
    "vgg11": [
        ("features.1", 64, 224),
        ("features.4", 128, 112),
        ("features.9", 256, 56),
        ("features.14", 512, 28),
        ("features.19", 512, 14),
        ("features", 512, 7),
    ],
    "vgg16_bn": [
        ("features.5", 64, 224),
        ("features.12", 128, 112),
        ("features.22", 256, 56),
        ("features.32", 512, 28),
        ("features.42", 512, 14),
        ("features", 512, 7),
    ],
    "vit_b_16": [(f"encoder.layers.encoder_layer_{block}", 768, 14) for block in (2, 5, 8, 11)],
    "vit_h_14": [(f"encoder.layers.encoder_layer_{block}", 1280, 16) for block in (7, 15, 23, 31)],
}


def same(output):
    return output


class Convolution(nn.Sequential):
    def __init__(self, in_channels, out_channels, stride=1):
        super().__init__(
            nn.Conv2d(in_channels, out_channels, 3, stride=stride, padding=1, bias=False),
            nn.BatchNorm2d(out_channels),
            nn.ReLU(inplace=True),
        )


class Net(nn.Module):
    """A plain model whose parts a test replaces."""

    def __init__(self, features, classifier):
        super().__init__()
        self.features = features
        self.classifier = classifier

    def forward(self, images):
        return self.classifier(self.features(images).mean((2, 3)))


@contextmanager
def _weights_on_meta():
    """Allocate and initialise nothing; ``torch.device("meta")`` cannot build a RegNet, which computes with tensors."""
    empty = torch.empty

    def on_meta(*size, **options):
        return empty(*size, **{**options, "device": "meta"})

    with ExitStack() as stack:
        stack.enter_context(mock.patch.object(torch, "empty", on_meta))
        for name in dir(nn.init):
            if name.endswith("_") and not name.startswith("_"):
                stack.enter_context(mock.patch.object(nn.init, name, lambda tensor, *_, **__: tensor))
        yield


def build(name):
    options = {"init_weights": False} if name in {"googlenet", "inception_v3"} else {}
    with _weights_on_meta():
        model = torchvision.models.get_model(name, weights=None, **options)
    return model.to("meta")


def images(name, batch=2):
    size = 299 if name == "inception_v3" else 224
    return torch.zeros(batch, 3, size, size, device="meta")
