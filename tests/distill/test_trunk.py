"""Which modules end a stage; the stages of torchvision's models are in ``test_pairing.py``."""

import torch
from tap_samples import SAMPLE, Convolution, Net, same
from torch import nn
from torchvision.models import VisionTransformer, resnet18

from distill.taps import probe


def test_a_hidden_stem_and_nested_backbone_are_seen_through():
    class Backbone(nn.Module):
        def __init__(self):
            super().__init__()
            self.model = resnet18()
            self.model.fc = nn.Identity()

        def forward(self, images):
            return self.model(images)

    class Wrapper(nn.Module):
        def __init__(self):
            super().__init__()
            self.backbone = Backbone()
            self.head = nn.Linear(512, 5)

        def forward(self, images):
            return self.head(self.backbone(images))

    found = probe(Wrapper(), torch.zeros(2, 3, 64, 64), same)
    assert [tap.name for tap in found.stages] == [f"backbone.model.layer{number}" for number in (1, 2, 3, 4)]
    assert found.last.name == "backbone.model.layer4"


def test_stages_inside_one_sequential_are_found():
    features = nn.Sequential(
        *(
            nn.Sequential(Convolution(width // 2 if width > 4 else 3, width, stride), Convolution(width, width))
            for width, stride in ((4, 1), (8, 2))
        )
    )
    found = probe(Net(features, nn.Linear(8, 5)), SAMPLE, same)
    assert [(tap.name, tap.stride) for tap in found.stages] == [("features.0", 1.0), ("features", 2.0)]


def test_a_model_with_one_composite_stage_keeps_its_stem():
    block = nn.Sequential(Convolution(8, 8, 2), Convolution(8, 8))
    found = probe(Net(nn.Sequential(Convolution(3, 4), Convolution(4, 8, 2), block), nn.Linear(8, 5)), SAMPLE, same)
    assert [tap.name for tap in found.stages] == ["features.0", "features.1", "features"]


def test_class_scores_and_global_pooling_are_no_features():
    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.features = nn.Sequential(Convolution(3, 5), Convolution(5, 5, 2), Convolution(5, 8, 2))
            self.classifier = nn.Sequential(nn.Conv2d(8, 5, 1), nn.ReLU(inplace=True), nn.AdaptiveAvgPool2d(1))

        def forward(self, images):
            return self.classifier(self.features(images)).flatten(1)

    found = probe(Model(), SAMPLE, same)
    assert [tap.name for tap in found.stages] == [
        "features.0",
        "features.1",
        "features",
    ]
    assert found.last.name == "features"
    assert found.classifier is None


def test_class_scores_are_no_features_where_a_function_pools_them():
    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.features = nn.Sequential(Convolution(3, 5), Convolution(5, 5, 2), Convolution(5, 8, 2))
            self.scores = nn.Conv2d(8, 5, 1)

        def forward(self, images):
            return self.scores(self.features(images)).mean((2, 3))

    found = probe(Model(), SAMPLE, same)
    assert [tap.name for tap in found.stages] == ["features.0", "features.1", "features"]
    assert found.last.name == "features"


def test_the_last_layer_is_a_feature_where_it_does_not_score_classes():
    class Prototypes(nn.Module):
        def __init__(self):
            super().__init__()
            self.features = nn.Conv2d(3, 8, 3)
            self.prototypes = nn.Parameter(torch.zeros(8, 5))

        def forward(self, images):
            return self.features(images).mean((2, 3)) @ self.prototypes

    assert probe(Prototypes(), SAMPLE, same).last.name == "features"


def test_blocks_of_a_model_of_one_resolution_are_split_evenly():
    def stages(num_layers):
        model = VisionTransformer(16, 4, num_layers, 2, 8, 16, num_classes=5)
        return [tap.name.rpartition("_")[2] for tap in probe(model, torch.zeros(2, 3, 16, 16), same).stages]

    assert stages(8) == ["1", "3", "5", "7"]
    assert stages(6) == ["1", "2", "4", "5"]
    assert stages(3) == ["0", "1", "2"]
    assert stages(1) == ["encoder"]
