"""Every classification network in ``__all__``, because it is there."""

import inspect

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import distill.models

# 100 classes, 3 channels. resnet8x4, resnet32x4, wrn_*: RepDistiller's models (its models/resnet.py and wrn.py).
# CifarResNet*: torchvision's published num_params (11,689,512, 21,797,672, 25,557,032) - 9,408 + 1,728 for the stem,
# - 1000(d+1) + 100(d+1) for the head, d = 512, 512, 2048. All others: by hand in test_resnet.py, test_wide_resnet.py.
NUM_PARAMETERS = {
    "CifarResNet18": 11_689_512 - 9_408 + 1_728 - 900 * 513,
    "CifarResNet34": 21_797_672 - 9_408 + 1_728 - 900 * 513,
    "CifarResNet50": 25_557_032 - 9_408 + 1_728 - 900 * 2_049,
    "ResNet8": 83_892,
    "ResNet8x4": 1_233_540,
    "ResNet14": 181_108,
    "ResNet20": 278_324,
    "ResNet32": 472_756,
    "ResNet32x4": 7_433_860,
    "ResNet56": 861_620,
    "WRN_16_1": 180_916,
    "WRN_16_2": 703_284,
    "WRN_40_1": 569_780,
    "WRN_40_2": 2_255_156,
    "WideResNet": 36_536_884,  # WRN-28-10: 36.5 million in the paper's table 4
}
REQUIRED = {"WideResNet": {"depth": 28, "widen": 10}}
SMALL = {"WideResNet": {"depth": 10, "widen": 1}}

CLASSIFIERS = [
    name
    for name in distill.models.__all__
    if "backbone" not in inspect.signature(getattr(distill.models, name)).parameters
]
ALL = pytest.mark.parametrize("name", CLASSIFIERS)


def make(name: str, **options: object) -> nn.Module:
    return getattr(distill.models, name)(**SMALL.get(name, {}), **options)


@ALL
def test_parameter_count(name):
    with torch.device("meta"):
        model = getattr(distill.models, name)(num_classes=100, **REQUIRED.get(name, {}))
    assert sum(parameter.numel() for parameter in model.parameters()) == NUM_PARAMETERS[name]


@ALL
def test_grey_images_of_any_size_and_any_number_of_classes(name):
    model = make(name, num_classes=7, in_channels=1).eval()
    with torch.no_grad():
        assert model(torch.randn(2, 1, 8, 8)).shape == (2, 7)
        assert model(torch.randn(2, 1, 28, 28)).shape == (2, 7)


@ALL
def test_stages_halve_the_map_after_the_first(name):
    model = make(name, num_classes=3).eval()
    sides = []
    for stage, child in model.named_children():
        if stage.startswith("layer"):
            child.register_forward_hook(lambda module, inputs, output: sides.append(tuple(output.shape[2:])))
    with torch.no_grad():
        model(torch.randn(1, 3, 32, 32))
    assert sides == [(32, 32), (16, 16), (8, 8), (4, 4)][: len(sides)]
    assert len(sides) == (4 if name.startswith("Cifar") else 3)


@ALL
def test_every_parameter_learns(name):
    torch.manual_seed(0)
    model = make(name, num_classes=5)
    F.cross_entropy(model(torch.randn(4, 3, 16, 16)), torch.arange(4)).backward()
    silent = [key for key, value in model.named_parameters() if value.grad is None or not value.grad.abs().sum() > 0]
    assert silent == []


# torchvision's blocks rectify in place, so taps inside them read later values; ours can be tapped anywhere
@pytest.mark.parametrize("name", [name for name in CLASSIFIERS if not name.startswith("Cifar")])
def test_a_forward_pass_changes_no_activation_in_place(name):
    model = make(name, num_classes=5)
    seen = []
    for module in model.modules():
        if not list(module.children()):
            module.register_forward_hook(lambda module, inputs, output: seen.append((output, output.detach().clone())))
    model(torch.randn(2, 3, 16, 16))
    assert len(seen) > 10
    assert all(torch.equal(now, then) for now, then in seen)


@ALL
def test_constructor_takes_keywords_only_and_no_default_number_of_classes(name):
    parameters = inspect.signature(getattr(distill.models, name)).parameters
    assert {parameter.kind for parameter in parameters.values()} == {inspect.Parameter.KEYWORD_ONLY}
    assert parameters["num_classes"].default is inspect.Parameter.empty
    assert parameters["in_channels"].default == 3


@ALL
@pytest.mark.parametrize("option", ["num_classes", "in_channels"])
def test_sizes_are_checked_by_name(name, option):
    options = {"num_classes": 10, "in_channels": 3, option: 0}
    with pytest.raises(ValueError, match=f"{option} must be a whole number of at least 1, found 0"):
        make(name, **options)


def test_all_are_counted():
    assert sorted(CLASSIFIERS) == sorted(NUM_PARAMETERS)
