import inspect

import pytest
import torch
import torch.nn.functional as F
import torchvision
from torch import nn
from torchvision.models.segmentation.deeplabv3 import DeepLabHead
from torchvision.models.segmentation.fcn import FCNHead

import distill.models
from distill.build import build
from distill.models import FCN, LRASPP, DeepLabV3, ResNet8
from distill.slots import MODEL

FACTORIES = [FCN, DeepLabV3, LRASPP]
ALL = pytest.mark.parametrize("factory", FACTORIES)
NARROW = {FCN: {}, DeepLabV3: {"width": 8}, LRASPP: {"width": 8}}


def small(factory, **options):
    torch.manual_seed(0)
    return factory(ResNet8(num_classes=2, width=8), num_classes=5, **NARROW[factory] | options)


@ALL
@pytest.mark.parametrize("scale", [1.0, 0.5])
def test_logits_have_the_size_of_the_images_and_every_parameter_learns(factory, scale):
    model = small(factory, scale=scale)
    logits = model(torch.randn(2, 3, 24, 32))["out"]
    assert logits.shape == (2, 5, 24, 32)
    F.cross_entropy(logits, torch.randint(5, (2, 24, 32))).backward()
    silent = [name for name, value in model.named_parameters() if value.grad is None or not value.grad.abs().sum() > 0]
    assert silent == []


@pytest.mark.parametrize("factory", [FCN, DeepLabV3])
def test_the_auxiliary_head_reads_the_map_before_the_deepest(factory):
    model = small(factory, auxiliary=True)
    assert model.aux_classifier[0].in_channels == 16
    assert {name: value.shape for name, value in model(torch.randn(2, 3, 16, 16)).items()} == {
        "out": (2, 5, 16, 16),
        "aux": (2, 5, 16, 16),
    }
    assert set(small(factory)(torch.randn(2, 3, 16, 16))) == {"out"}


def shapes(model: nn.Module) -> dict[str, tuple[int, ...]]:
    return {name: tuple(value.shape) for name, value in model.state_dict().items()}


def test_heads_are_torchvisions():
    with torch.device("meta"):
        assert shapes(FCN(torchvision.models.resnet50(), num_classes=5).classifier) == shapes(FCNHead(2048, 5))
        deep = DeepLabV3(torchvision.models.resnet50(), num_classes=5)
        assert shapes(deep.classifier) == shapes(DeepLabHead(2048, 5))
        assert [type(layer) for layer in deep.classifier] == [type(layer) for layer in DeepLabHead(2048, 5)]
        wide = FCN(torchvision.models.resnet50(), num_classes=5, width=24)
    assert shapes(wide.classifier)["0.weight"] == (24, 2048, 3, 3)
    assert shapes(wide.classifier)["4.weight"] == (5, 24, 1, 1)


@pytest.mark.parametrize(
    ("factory", "reference"),
    [
        (FCN, torchvision.models.segmentation.fcn_resnet50),
        (DeepLabV3, torchvision.models.segmentation.deeplabv3_resnet50),
    ],
)
def test_on_a_resnet_the_model_is_torchvisions(factory, reference):
    theirs = reference(weights_backbone=None, num_classes=5, aux_loss=True).eval()
    ours = factory(torchvision.models.resnet50(), num_classes=5, auxiliary=True).eval()
    state = list(theirs.state_dict().values())
    assert len(ours.state_dict()) == len(state)
    ours.load_state_dict(dict(zip(ours.state_dict(), state, strict=True)))
    images = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        wanted, found = theirs(images), ours(images)
    assert wanted.keys() == found.keys()
    assert all(torch.equal(found[name], wanted[name]) for name in wanted)


def test_a_lite_raspp_on_mobilenet_reads_torchvisions_strides():
    model = LRASPP(torchvision.models.mobilenet_v3_large(), num_classes=5).eval()
    theirs = torchvision.models.segmentation.lraspp_mobilenet_v3_large(weights_backbone=None, num_classes=5).eval()
    images = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        ours, reference = model.backbone(images), theirs.backbone(images)
    assert {name: value.shape for name, value in ours.items()} == {
        name: value.shape for name, value in reference.items()
    }
    assert shapes(model.classifier) == shapes(theirs.classifier)


@ALL
def test_it_is_built_from_a_file(factory):
    spec = {"use": factory.__name__, **NARROW[factory], "backbone": {"use": "ResNet8", "width": 4}}
    model = build(spec, MODEL, num_classes=3, in_channels=1)
    assert model.eval()(torch.randn(1, 1, 16, 16))["out"].shape == (1, 3, 16, 16)


@ALL
def test_a_backbone_for_colours_is_refused_for_grey_images(factory):
    spec = {"use": factory.__name__, "backbone": {"use": "torchvision.models.resnet18"}}
    with torch.device("meta"), pytest.raises(ValueError, match="backbone: ResNet takes 3 channels"):
        build(spec, MODEL, num_classes=3, in_channels=1)


@ALL
def test_sizes_are_checked_by_name(factory):
    with pytest.raises(ValueError, match="num_classes must be a whole number of at least 1, found 0"):
        factory(ResNet8(num_classes=2), num_classes=0)
    with pytest.raises(ValueError, match="width must be a whole number of at least 1, found 0"):
        small(factory, width=0)


class Plain(nn.Module):
    """A network of one stage."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Conv2d(3, 8, kernel_size=3, padding=1)
        self.fc = nn.Linear(8, 2)

    def forward(self, images):
        return self.fc(self.features(images).mean((2, 3)))


def test_what_needs_two_stages():
    with pytest.raises(ValueError, match="backbone of an LRASPP must have at least 2 stages, found 1"):
        LRASPP(Plain(), num_classes=3)
    with pytest.raises(ValueError, match="auxiliary needs a backbone of at least 2 stages, found 1"):
        FCN(Plain(), num_classes=3, auxiliary=True)
    with pytest.raises(ValueError, match=r"atrous_rates must be whole numbers of at least 1, found \[\]"):
        small(DeepLabV3, atrous_rates=())


def test_dense_models_take_a_backbone_and_a_number_of_classes():
    dense = [
        inspect.signature(getattr(distill.models, name)).parameters
        for name in distill.models.__all__
        if "backbone" in inspect.signature(getattr(distill.models, name)).parameters
    ]
    assert len(dense) >= len(FACTORIES)
    for parameters in dense:
        assert [name for name, option in parameters.items() if option.default is inspect.Parameter.empty] == [
            "backbone",
            "num_classes",
        ]
