"""Weights from torchvision come from a hub cache that the tests fill: nothing is ever downloaded."""

import os
from urllib.error import URLError

import pytest
import torch
from torch import nn
from torchvision import models

from distill.backbone_weights import find_backbone_weights, make_with_backbone
from distill.build import blueprint
from distill.slots import MODEL

OURS = {"use": "FCN", "backbone": {"use": "torchvision.models.shufflenet_v2_x0_5"}}


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """An empty hub cache without network."""

    def offline(url, *args, **kwargs):
        raise URLError(f"no network in tests: {url}")

    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "home"))
    monkeypatch.setattr(torch.hub, "download_url_to_file", offline)
    cache = tmp_path / "home" / "hub" / "checkpoints"
    cache.mkdir(parents=True)
    return cache


def pretrained(hub, factory, weights="DEFAULT"):
    """Put a file in the cache whose tensors can be told from fresh ones, and return them."""
    state = {
        name: torch.rand_like(value) + 0.5 if value.is_floating_point() else value
        for name, value in factory(num_classes=1000).state_dict().items()
    }
    torch.save(state, hub / os.path.basename(models.get_model_weights(factory)[weights].url))  # noqa: PTH119
    return state


def both(spec, weights, **sizes):
    """Make a model with weights for its backbone, and the same without."""
    drawn, made = blueprint(spec, MODEL), []
    for make in (lambda: make_with_backbone(drawn, weights, **sizes), lambda: (drawn.make(**sizes), [])):
        torch.manual_seed(3)
        made.append(make())
    (model, messages), (plain, _) = made
    return model, plain, messages


def test_a_dense_model_of_ours(hub):
    state = pretrained(hub, models.shufflenet_v2_x0_5)
    model, plain, messages = both(OURS, "DEFAULT", num_classes=4, in_channels=3)
    assert messages == [f"torchvision's ShuffleNet_V2_X0_5_Weights.IMAGENET1K_V1: {len(state) - 2} tensors loaded"]
    assert torch.equal(model.backbone.stage3.stage2[1].branch2[0].weight, state["stage2.1.branch2.0.weight"])
    taken = [value for name, value in model.state_dict().items() if name.startswith("backbone.")]
    wanted = [value for name, value in state.items() if not name.startswith("fc.")]
    assert all(torch.equal(one, other) for one, other in zip(taken, wanted, strict=True))
    assert all(
        torch.equal(value, plain.state_dict()[name])
        for name, value in model.state_dict().items()
        if not name.startswith("backbone.")
    )


BUILDERS = {
    "segmentation.lraspp_mobilenet_v3_large": ("backbone.", "features."),
    "detection.fasterrcnn_mobilenet_v3_large_320_fpn": ("backbone.body.", "features."),
}


@pytest.mark.parametrize("name", BUILDERS)
def test_torchvisions_dense_models(name, hub):
    inside, outside = BUILDERS[name]
    state = pretrained(hub, models.mobilenet_v3_large, "IMAGENET1K_V1")
    model, plain, messages = both({"use": f"torchvision.models.{name}"}, "IMAGENET1K_V1", num_classes=4)
    features = {key.replace(outside, inside, 1): value for key, value in state.items() if key.startswith(outside)}
    assert len(features) > 200
    found, fresh = model.state_dict(), plain.state_dict()
    assert all(torch.equal(found[key], value) for key, value in features.items())
    assert all(torch.equal(found[key], fresh[key]) for key in found if key not in features)
    assert len(messages) == 1
    assert messages[0].startswith("torchvision's MobileNet_V3_Large_Weights.IMAGENET1K_V1: ")
    assert found.keys() == fresh.keys()
    assert all(value.requires_grad for value in model.parameters())
    assert any(isinstance(module, nn.BatchNorm2d) for module in model.backbone.modules())


def test_an_ssdlite_says_what_does_not_fit(hub):
    state = pretrained(hub, models.mobilenet_v3_large, "IMAGENET1K_V1")
    spec = {"use": "torchvision.models.detection.ssdlite320_mobilenet_v3_large"}
    model, _, messages = both(spec, "IMAGENET1K_V1", num_classes=4)
    assert torch.equal(model.backbone.features[0][0][0].weight, state["features.0.0.weight"])
    assert "have another shape here, and start fresh: backbone.features." in messages[1]


def test_the_seed_of_what_comes_later_does_not_depend_on_weights(hub):
    pretrained(hub, models.shufflenet_v2_x0_5)
    drawn = blueprint(OURS, MODEL)
    torch.manual_seed(5)
    drawn.make(num_classes=4, in_channels=3)
    expected = torch.rand(3)
    torch.manual_seed(5)
    make_with_backbone(drawn, "DEFAULT", num_classes=4, in_channels=3)
    assert torch.equal(torch.rand(3), expected)


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ({"use": "ResNet8"}, "is for dense models with a backbone of torchvision.models, found ResNet8$"),
        ({"use": "torchvision.models.resnet18"}, r"is for dense models .*, found torchvision\.models\.resnet18$"),
        ({"use": "FCN", "backbone": {"use": "ResNet8"}}, r"is for dense models .*, found backbone ResNet8$"),
        (OURS, "of FCN must be one of IMAGENET1K_V1, DEFAULT, found 'DEFALT'; did you mean 'DEFAULT'"),
        (
            {"use": "torchvision.models.detection.retinanet_resnet50_fpn"},
            r"of .*_fpn must be one of IMAGENET1K_V1, IMAGENET1K_V2, DEFAULT, found 'DEFALT'",
        ),
    ],
)
def test_what_has_no_such_weights_is_said_without_loading_any(spec, message, hub):
    with pytest.raises(ValueError, match=f"^weights_backbone {message}"):
        find_backbone_weights(blueprint(spec, MODEL), "DEFALT")


@pytest.mark.parametrize(
    "name",
    [
        f"torchvision.models.{kind}.{name}"
        for kind in ("segmentation", "detection")
        for name in models.list_models(module=getattr(models, kind), exclude=("maskrcnn_*", "keypointrcnn_*"))
    ],
)
def test_every_dense_model_of_torchvision_is_made_without_fetching_anything(name, hub):
    find_backbone_weights(blueprint({"use": name}, MODEL), "IMAGENET1K_V1")
    with torch.device("meta"):
        model = blueprint({"use": name}, MODEL).make(num_classes=4, in_channels=3)
    assert all(value.is_meta for value in model.parameters())
    assert not list(hub.iterdir())


def test_no_network_says_what_was_wanted(hub):
    drawn = blueprint({"use": "torchvision.models.segmentation.fcn_resnet50"}, MODEL)
    with pytest.raises(OSError, match=r"ResNet50_Weights\.IMAGENET1K_V1 cannot be downloaded from https://.*resnet50"):
        make_with_backbone(drawn, "IMAGENET1K_V1", num_classes=4)


class Canary:
    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        return os.mkdir, (self.path,)


@pytest.mark.parametrize("spec", [OURS, {"use": "torchvision.models.segmentation.lraspp_mobilenet_v3_large"}])
def test_a_planted_file_in_the_cache_runs_no_code(spec, hub, tmp_path):
    for factory in (models.shufflenet_v2_x0_5, models.mobilenet_v3_large):
        path = hub / os.path.basename(models.get_model_weights(factory).IMAGENET1K_V1.url)  # noqa: PTH119
        torch.save({"fc.weight": Canary(tmp_path / "canary")}, path)
    with pytest.raises(ValueError, match=r"cannot be read: .*mkdir.*; delete the file"):
        make_with_backbone(blueprint(spec, MODEL), "IMAGENET1K_V1", num_classes=4, in_channels=3)
    assert not (tmp_path / "canary").exists()
