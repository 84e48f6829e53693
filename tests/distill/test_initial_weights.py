"""Weights from torchvision come from a hub cache that the tests fill: nothing is ever downloaded."""

import logging
import os
import re
from urllib.error import URLError

import pytest
import torch
import torchvision
from torch import nn
from torchvision import models

from distill.initial_weights import checkpoint_state, initialise
from distill.models import ResNet8


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


def file_of(hub, factory, weights="DEFAULT"):
    return hub / os.path.basename(models.get_model_weights(factory)[weights].url)  # noqa: PTH119


def made(factory, seed, **options) -> nn.Module:
    torch.manual_seed(seed)
    return factory(**options)


def test_without_weights_the_model_stays():
    model = ResNet8(num_classes=10)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    assert initialise(model, num_classes=10) == []
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


@pytest.mark.parametrize(
    ("factory", "head"), [(models.shufflenet_v2_x0_5, "fc"), (models.squeezenet1_1, "classifier.1")]
)
def test_torchvision_weights_with_another_head(factory, head, hub, caplog):
    pretrained = made(factory, seed=1).state_dict()
    torch.save(pretrained, file_of(hub, factory))
    model = made(factory, seed=2, num_classes=10)
    fresh = model.get_submodule(head).weight.clone()
    with caplog.at_level(logging.INFO, logger="distill.initial_weights"):
        messages = initialise(model, num_classes=10, weights="DEFAULT", factory=factory)
    name = f"torchvision's {models.get_model_weights(factory).__name__}.IMAGENET1K_V1"
    assert messages == [
        f"{name}: {len(pretrained) - 2} tensors loaded",
        f"{name}: head {head} has 1000 classes, the data 10: replaced by a fresh one, which is still to be trained",
    ]
    assert caplog.messages == messages
    assert torch.equal(model.get_submodule(head).weight, fresh)
    taken = {key for key, value in model.state_dict().items() if torch.equal(value, pretrained[key])}
    assert taken == {key for key in pretrained if not key.startswith(f"{head}.")}


def test_a_thousand_classes_keep_the_head(hub):
    factory = models.shufflenet_v2_x0_5
    pretrained = made(factory, seed=1).state_dict()
    torch.save(pretrained, file_of(hub, factory))
    model = made(factory, seed=2)
    assert len(initialise(model, num_classes=1000, weights="IMAGENET1K_V1", factory=factory)) == 1
    assert torch.equal(model.fc.weight, pretrained["fc.weight"])


def test_old_names_in_densenets_file(hub):
    pretrained = made(models.densenet121, seed=1).state_dict()
    # torchvision's file is from before 0.2, when layers were called norm.1, conv.2
    old = {
        re.sub(r"(denselayer\d+\.(?:norm|conv))(\d)\.", r"\1.\2.", key): value
        for key, value in pretrained.items()
        if not key.endswith("num_batches_tracked")
    }
    assert "features.denseblock1.denselayer1.norm.1.weight" in old
    torch.save(old, file_of(hub, models.densenet121))
    model = made(models.densenet121, seed=2, num_classes=10)
    initialise(model, num_classes=10, weights="DEFAULT", factory=models.densenet121)
    name = "features.denseblock4.denselayer16.conv2.weight"
    assert torch.equal(model.get_parameter(name), pretrained[name])


@pytest.mark.filterwarnings("ignore:The default weight initialization of GoogleNet")
def test_auxiliary_heads_of_googlenet_start_fresh(hub):
    pretrained = made(models.googlenet, seed=1, init_weights=False).state_dict()
    torch.save(pretrained, file_of(hub, models.googlenet))
    model = made(models.googlenet, seed=2, num_classes=10, init_weights=False)
    fresh = model.aux1.fc2.weight.clone()
    messages = initialise(model, num_classes=10, weights="DEFAULT", factory=models.googlenet)
    assert [message.partition(": ")[2] for message in messages[1:]] == [
        "has no auxiliary head aux1: it starts fresh",
        "has no auxiliary head aux2: it starts fresh",
        "head fc has 1000 classes, the data 10: replaced by a fresh one, which is still to be trained",
    ]
    assert torch.equal(model.aux1.fc2.weight, fresh)
    assert torch.equal(model.inception5b.branch1.conv.weight, pretrained["inception5b.branch1.conv.weight"])


def test_the_seed_of_what_comes_later_does_not_depend_on_weights(hub):
    factory = models.shufflenet_v2_x0_5
    torch.save(made(factory, seed=1).state_dict(), file_of(hub, factory))
    model = made(factory, seed=2, num_classes=10)
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    initialise(model, num_classes=10, weights="DEFAULT", factory=factory)
    assert torch.equal(torch.rand(3), expected)


class Canary:
    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        return os.mkdir, (self.path,)


def test_a_planted_file_in_the_cache_runs_no_code(hub, tmp_path):
    factory = models.shufflenet_v2_x0_5
    path = file_of(hub, factory)
    torch.save({"fc.weight": Canary(tmp_path / "canary")}, path)
    with pytest.raises(
        ValueError,
        match=r"ShuffleNet_V2_X0_5_Weights\.IMAGENET1K_V1 in .* cannot be read: .*posix\.mkdir.*; delete the file",
    ):
        initialise(made(factory, seed=0), num_classes=1000, weights="DEFAULT", factory=factory)
    assert not (tmp_path / "canary").exists()


def test_no_network_says_what_was_wanted(hub):
    with pytest.raises(OSError, match=r"ResNet18_Weights\.IMAGENET1K_V1 cannot be downloaded from https://.*resnet18"):
        initialise(models.resnet18(num_classes=10), num_classes=10, weights="DEFAULT", factory=models.resnet18)


def test_unknown_weights_show_the_menu():
    with pytest.raises(
        ValueError,
        match=r"weights of resnet50 must be one of IMAGENET1K_V1, .*found 'IMAGENET1K_V3'; did you mean 'IMAGENET",
    ):
        initialise(nn.Identity(), num_classes=10, weights="IMAGENET1K_V3", factory=models.resnet50)


@pytest.mark.parametrize(("factory", "found"), [(ResNet8, r"distill\.models\.resnet\.ResNet8"), (None, "none")])
def test_only_torchvision_has_weights(factory, found):
    with pytest.raises(
        ValueError,
        match=f"weights 'DEFAULT' are those of a model of torchvision.models, found {found}; .* by weights_backbone",
    ):
        initialise(ResNet8(num_classes=10), num_classes=10, weights="DEFAULT", factory=factory)


def test_not_both():
    with pytest.raises(
        ValueError, match=r"give weights or checkpoint, not both, found weights 'DEFAULT', checkpoint 'x\.pt'"
    ):
        initialise(
            nn.Identity(), num_classes=10, weights="DEFAULT", checkpoint="x.pt", factory=torchvision.models.resnet18
        )


@pytest.mark.parametrize("key", [None, "state_dict", "model_state_dict", "model"])
def test_checkpoint_files_of_all_habits(key, tmp_path):
    state = made(ResNet8, seed=1, num_classes=10).state_dict()
    content = state if key is None else {"epoch": 3, "best": 0.5, key: {f"module.{k}": v for k, v in state.items()}}
    torch.save(content, tmp_path / "teacher.pth")
    model = made(ResNet8, seed=2, num_classes=10)
    messages = initialise(model, num_classes=10, checkpoint=tmp_path / "teacher.pth")
    assert messages == [f"checkpoint {tmp_path / 'teacher.pth'}: {len(state)} tensors loaded"]
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())


def test_checkpoint_with_another_head(tmp_path):
    torch.save(made(ResNet8, seed=1, num_classes=1000).state_dict(), tmp_path / "x.pt")
    messages = initialise(made(ResNet8, seed=2, num_classes=10), num_classes=10, checkpoint=str(tmp_path / "x.pt"))
    assert messages[1].endswith(
        "x.pt: head fc has 1000 classes, the data 10: replaced by a fresh one, which is still to be trained"
    )


@pytest.mark.parametrize(
    ("content", "finding"),
    [
        ([torch.ones(2)], "found list"),
        ({}, "found an empty dict"),
        (
            {"epoch": 3, "weights": {"w": torch.ones(1)}},
            r"2 of its entries are no tensors: epoch \(int\), weights \(dict\)",
        ),
    ],
)
def test_files_without_state_dict(content, finding, tmp_path):
    torch.save(content, tmp_path / "odd.pt")
    with pytest.raises(ValueError, match=rf"odd\.pt must hold a state dict.*{finding}$"):
        checkpoint_state(tmp_path / "odd.pt")
