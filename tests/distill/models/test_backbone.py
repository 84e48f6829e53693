import copy
import warnings

import pytest
import torch
import torch.nn.functional as F
import torchvision
from torch import nn

from distill.models import ResNet8, WideResNet
from distill.models.backbone import Backbone

# By hand from the papers' tables: the last map of each stride.
STAGES = {
    "resnet18": {2: 64, 4: 64, 8: 128, 16: 256, 32: 512},
    "resnet50": {2: 64, 4: 256, 8: 512, 16: 1024, 32: 2048},
    "mobilenet_v2": {2: 16, 4: 24, 8: 32, 16: 96, 32: 1280},
    "mobilenet_v3_large": {2: 16, 4: 24, 8: 40, 16: 112, 32: 960},
    "efficientnet_b0": {2: 16, 4: 24, 8: 40, 16: 112, 32: 1280},
    "convnext_tiny": {4: 96, 8: 192, 16: 384, 32: 768},
    "regnet_y_400mf": {2: 32, 4: 48, 8: 104, 16: 208, 32: 440},
    "shufflenet_v2_x0_5": {2: 24, 4: 24, 8: 48, 16: 96, 32: 1024},
    "vgg11": {1: 64, 2: 128, 4: 256, 8: 512, 16: 512, 32: 512},
    "densenet121": {2: 64, 4: 256, 8: 512, 16: 1024, 32: 1024},
    "mnasnet0_5": {2: 8, 4: 16, 8: 24, 16: 48, 32: 1280},
    "googlenet": {2: 64, 4: 192, 8: 480, 16: 832, 32: 1024},
    "swin_t": {4: 96, 8: 192, 16: 384, 32: 768},
}
# What torchvision's own extraction calls the last map of the network.
LAST = {
    "resnet18": "layer4",
    "resnet50": "layer4",
    "regnet_y_400mf": "trunk_output",
    "shufflenet_v2_x0_5": "conv5",
    "mnasnet0_5": "layers",
    "googlenet": "inception5b",
    "densenet121": "features.norm5",
    "swin_t": "permute",
}
WITHOUT_POOLING = ("features", "layer4", "trunk_output", "conv5", "layers", "inception5b", "permute")


def made(name: str, **options: object) -> nn.Module:
    torch.manual_seed(0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return torchvision.models.get_model(name, weights=None, num_classes=7, **options).eval()


def last_map(name: str, model: nn.Module, images: torch.Tensor) -> torch.Tensor:
    """Return a copy of what the named module returns, before anything writes into it."""
    seen = []
    model.get_submodule(LAST.get(name, "features")).register_forward_hook(lambda *step: seen.append(step[2].clone()))
    model(images)
    return seen[0]


@pytest.mark.parametrize("name", STAGES)
def test_its_maps_are_the_networks_own(name):
    model = made(name)
    images = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        wanted = last_map(name, model, images)
        backbone = Backbone(copy.deepcopy(model)).eval()
        maps = backbone(images)
    assert dict(zip(backbone.strides, backbone.channels, strict=True)) == STAGES[name]
    assert list(maps) == [f"stage{number}" for number in range(1, len(STAGES[name]) + 1)]
    assert [(value.shape[1], 64 // value.shape[2]) for value in maps.values()] == [
        (channels, stride) for stride, channels in STAGES[name].items()
    ]
    assert torch.equal(list(maps.values())[-1], wanted)


@pytest.mark.parametrize(
    ("name", "middle"), [("resnet18", "layer2"), ("mobilenet_v2", "features.6"), ("swin_t", "features.3")]
)
def test_a_map_on_the_way(name, middle):
    model, images, seen = made(name), torch.randn(1, 3, 64, 64), []
    handle = model.get_submodule(middle).register_forward_hook(lambda *step: seen.append(step[2].clone()))
    with torch.no_grad():
        model(images)
        handle.remove()
        backbone = Backbone(model).eval()
        found = backbone(images)[f"stage{backbone.strides.index(8) + 1}"]
    assert torch.equal(found, seen[0].permute(0, 3, 1, 2) if name == "swin_t" else seen[0])


def test_our_networks_keep_the_stride_of_their_stem():
    assert Backbone(ResNet8(num_classes=10, width=8)).strides == (1, 2, 4)
    wide = Backbone(WideResNet(depth=10, widen=1, num_classes=10, in_channels=1), in_channels=1)
    assert (wide.strides, wide.channels) == ((1, 2, 4), (16, 32, 64))


def test_nothing_of_the_classifier_is_left():
    backbone = Backbone(torchvision.models.resnet18())
    assert sum(value.numel() for value in backbone.parameters()) == 11_689_512 - 1000 * 513
    assert [name for name, _ in backbone.named_children()] == ["stage1", "stage2", "stage3", "stage4", "stage5"]
    assert isinstance(backbone.stage3.layer2[0], torchvision.models.resnet.BasicBlock)


def test_construction_changes_no_number_and_draws_none():
    model = made("mobilenet_v2").train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    generator = torch.get_rng_state()
    backbone = Backbone(model, output_stride=8)
    assert torch.equal(torch.get_rng_state(), generator)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert backbone.stage1.training


def test_it_can_be_built_without_memory():
    with torch.device("meta"):
        backbone = Backbone(torchvision.models.resnet50(), output_stride=8)
        assert list(backbone(torch.empty(2, 3, 96, 64)).values())[-1].shape == (2, 2048, 12, 8)
    assert all(value.is_meta for value in backbone.parameters())


@pytest.mark.parametrize("keeps", [(False, True, True), (False, False, True)])
def test_dilation_is_torchvisions(keeps):
    plain, dilated = made("resnet50"), made("resnet50", replace_stride_with_dilation=keeps)
    images = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        wanted = last_map("resnet50", dilated, images)
        backbone = Backbone(plain, output_stride=8 if keeps[1] else 16).eval()
        assert torch.equal(backbone(images)["stage5"], wanted)
    assert backbone.strides == ((2, 4, 8, 8, 8) if keeps[1] else (2, 4, 8, 16, 16))


@pytest.mark.parametrize("name", ["resnet18", "mobilenet_v2", "mnasnet0_5", "regnet_x_400mf"])
def test_every_fourth_value_of_a_dilated_map_is_what_it_was(name):
    images = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        plain = list(Backbone(made(name)).eval()(images).values())[-1]
        dilated = list(Backbone(made(name), output_stride=8).eval()(images).values())[-1]
    assert dilated.shape[2:] == (8, 8)
    torch.testing.assert_close(dilated[:, :, ::4, ::4], plain, rtol=1e-4, atol=1e-5)


def test_an_output_stride_that_is_reached_anyway_changes_nothing():
    backbone = Backbone(ResNet8(num_classes=10, width=8), output_stride=8)
    assert {module.dilation for module in backbone.modules() if isinstance(module, nn.Conv2d)} == {(1, 1)}


def test_scale_resizes_the_images():
    torch.manual_seed(0)
    model = ResNet8(num_classes=10, width=8)
    images = torch.randn(1, 3, 32, 48)
    with torch.no_grad():
        whole = Backbone(copy.deepcopy(model)).eval()
        half = Backbone(model, scale=0.5).eval()
        small = F.interpolate(images, size=(16, 24), mode="bilinear", align_corners=False, antialias=True)
        assert torch.equal(half(images)["stage2"], whole(small)["stage2"])


def test_stages_can_be_chosen_and_named():
    backbone = Backbone(ResNet8(num_classes=10, width=8)).select({"out": -1, "aux": 0})
    maps = backbone(torch.randn(1, 3, 16, 16))
    assert {name: tuple(value.shape) for name, value in maps.items()} == {"out": (1, 32, 4, 4), "aux": (1, 8, 16, 16)}


class Adds(nn.Module):
    """A network whose last convolution sees more than the one before it made."""

    def __init__(self, how: str) -> None:
        super().__init__()
        self.how = how
        self.one = nn.Conv2d(3, 8, kernel_size=3, stride=2, padding=1)
        self.two = nn.Conv2d(8, 8, kernel_size=3, padding=1)
        self.pool = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())
        self.fc = nn.Linear(8, 4)

    def forward(self, images):
        first = self.one(images)
        if self.how == "in place":
            first += 1
        second = self.two(first + 1 if self.how == "aside" else first)
        second = self.two(second) if self.how == "twice" else second
        return self.fc(self.pool(second))


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ("aside", "what enters 'two' is not what 'one' returns"),
        ("in place", "what enters 'two' is not what 'one' returns"),
        ("twice", "'two' does not run once, in the order of the chain"),
    ],
)
def test_what_is_no_chain_is_refused(how, message):
    with pytest.raises(ValueError, match=f"backbone must be a chain of modules .* found Adds: {message}"):
        Backbone(Adds(how))
    assert Backbone(Adds("")).strides == (2,)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("vit_b_16", {}, "found VisionTransformer: what enters 'encoder' is not what 'conv_proj' returns"),
        ("resnet18", {"in_channels": 1}, "backbone ResNet takes 3 channels, but the images have 1"),
        ("resnet18", {"scale": 0.0}, "scale must be above 0, found 0.0"),
        ("resnet18", {"output_stride": 12}, "output_stride must be a power of two, such as 8 or 16, found 12"),
        (
            "vgg11",
            {"output_stride": 8},
            "output_stride 8 needs maps .* found 'features.15': MaxPool2d, no convolution; at 32 this",
        ),
        ("densenet121", {"output_stride": 16}, "found 'features.transition3.pool': AvgPool2d, no convolution"),
        ("convnext_tiny", {"output_stride": 8}, r"found 'features.4.1': a convolution of even size \(2, 2\)"),
        ("inception_v3", {"output_stride": 8, "init_weights": False}, "output_stride 8 does not go with this backbone"),
    ],
)
def test_refusals(name, options, message):
    own = {key: options[key] for key in options if key == "init_weights"}
    with torch.device("cpu" if name == "vit_b_16" else "meta"), pytest.raises(ValueError, match=message):
        Backbone(made(name, **own), **{key: value for key, value in options.items() if key not in own})


def test_what_is_no_classification_network_is_refused():
    with pytest.raises(ValueError, match=r"backbone must be a classification network .* found Conv2d: .*Kernel"):
        Backbone(nn.Conv2d(4, 4, kernel_size=900), in_channels=4)
    with pytest.raises(ValueError, match="found FCN: it returns OrderedDict, not class scores"):
        Backbone(torchvision.models.segmentation.fcn_resnet50(weights_backbone=None))
