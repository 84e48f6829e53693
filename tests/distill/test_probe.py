import pytest
import torch
from tap_samples import SAMPLE, Convolution, Net, same
from torch import nn
from torchvision.models import inception_v3, resnet18

from distill.taps import OUTPUT, Tap, probe


def test_a_probe_leaves_no_trace():
    model = resnet18(num_classes=5).train()
    model.layer2.eval()
    model.layer3[0].bn1.eval()
    modes = {name: module.training for name, module in model.named_modules()}
    state = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    probe(model, torch.rand(2, 3, 32, 32), same)
    assert {name: module.training for name, module in model.named_modules()} == modes
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())
    assert all(torch.equal(tensor, state[name]) for name, tensor in model.state_dict().items())


def test_a_failing_model_is_left_as_it_was():
    model = resnet18(num_classes=5).train()
    model.fc = nn.Linear(3, 5)
    with pytest.raises(RuntimeError, match="shapes"):
        probe(model, torch.zeros(2, 3, 32, 32), same)
    assert all(module.training for module in model.modules())
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())


def test_the_probe_runs_in_evaluation_mode_without_gradient():
    seen = []

    class Spy(nn.Module):
        def forward(self, images):
            seen.append((self.training, torch.is_grad_enabled()))
            return images

    probe(Net(nn.Sequential(Spy(), Convolution(3, 4)), nn.Linear(4, 5)), SAMPLE, same)
    assert seen == [(False, False)]


def test_shapes_agree_between_meta_and_cpu():
    model = resnet18(num_classes=5)
    here = probe(model, torch.zeros(2, 3, 32, 32), same)
    meta = probe(model.to("meta"), torch.zeros(2, 3, 32, 32, device="meta"), same)
    assert dict(here.taps) == dict(meta.taps)
    assert here.refused == meta.refused
    assert here.stages == meta.stages


def test_a_tap_says_what_the_module_returns():
    found = probe(resnet18(num_classes=5), torch.zeros(2, 3, 64, 64), same)
    assert found["layer2"] == Tap("layer2", 128, 8, 8, 8.0, "nchw")
    assert found["avgpool"] == Tap("avgpool", 512, 1, 1, 64.0, "nchw")
    assert found["fc"] == Tap("fc", 5, 1, 1, 64.0, "vector")
    assert found[OUTPUT] == Tap(OUTPUT, 5, 1, 1, 64.0, "vector")
    assert found.output_shape == (5,)


def test_an_overwritten_activation_is_refused_with_the_name_of_what_overwrites_it():
    found = probe(Net(nn.Sequential(Convolution(3, 4), Convolution(4, 8, 2)), nn.Linear(8, 5)), SAMPLE, same)
    with pytest.raises(ValueError, match=r"'features.0.1' cannot .*overwritten in place; tap 'features.0.2'"):
        found["features.0.1"]
    assert "features.0.0" in found.taps  # BatchNorm makes a new tensor
    assert not set(found.refused) & {tap.name for tap in found.stages}


def test_an_activation_overwritten_by_a_function_is_refused():
    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.block = Convolution(3, 4)
            self.norm = nn.BatchNorm2d(4)
            self.fc = nn.Linear(4, 5)

        def forward(self, images):
            return self.fc(nn.functional.relu(self.norm(self.block(images)), inplace=True).mean((2, 3)))

    found = probe(Model(), SAMPLE, same)
    assert [tap.name for tap in found.stages] == ["block"]
    assert found.last.name == "block"
    with pytest.raises(ValueError, match=r"'norm' cannot be tapped: .*overwritten in place, and no module"):
        found["norm"]


def test_writing_into_a_view_counts_as_overwriting():
    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.block = Convolution(3, 4)
            self.fc = nn.Linear(4, 5)

        def forward(self, images):
            features = self.block(images)
            features[:, :2].mul_(2)
            return self.fc(features.mean((2, 3)))

    with pytest.raises(ValueError, match="'block' cannot be tapped: its output is overwritten"):
        probe(Model(), SAMPLE, same)["block"]


@pytest.mark.parametrize(("inplace", "taps"), [(False, ["block", "dropout", "fc"]), (True, ["dropout", "fc"])])
def test_what_dropout_overwrites_in_training_is_refused(inplace, taps):
    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.block = Convolution(3, 4)
            self.dropout = nn.Dropout2d(0.5, inplace=inplace)
            self.fc = nn.Linear(4, 5)

        def forward(self, images):
            return self.fc(self.dropout(self.block(images)).mean((2, 3)))

    found = probe(Model(), SAMPLE, same)
    assert [name for name in found.taps if name in {"block", "dropout", "fc"}] == taps
    assert found.stages[-1].name == taps[0]


def test_a_shared_module_is_refused_by_name_and_skipped_by_auto():
    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv1 = nn.Conv2d(3, 4, 3, padding=1)
            self.conv2 = nn.Conv2d(4, 8, 3, padding=1, stride=2)
            self.relu = nn.ReLU()
            self.fc = nn.Linear(8, 5)

        def forward(self, images):
            return self.fc(self.relu(self.conv2(self.relu(self.conv1(images)))).mean((2, 3)))

    found = probe(Model(), SAMPLE, same)
    assert [tap.name for tap in found.stages] == ["conv1", "conv2"]
    with pytest.raises(ValueError, match=r"'relu' cannot be tapped: it runs 2 times .* tap the module around it"):
        found["relu"]


def test_modules_without_one_tensor_are_refused_with_the_reason():
    class Pair(nn.Module):
        def forward(self, images):
            return images, images

    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.block = Convolution(3, 4)
            self.pair = Pair()
            self.unused = nn.Linear(2, 2)
            self.fc = nn.Linear(4, 5)
            self.odd = nn.Unflatten(1, (2, 1, 2, 1, 2, 2))

        def forward(self, images):
            features, _ = self.pair(self.block(images))
            self.odd(features[:, :, 0, :4].flatten(1))
            return self.fc(features.mean((2, 3)))

    found = probe(Model(), SAMPLE, same)
    with pytest.raises(ValueError, match="'pair' cannot be tapped: it returns a tuple, not one tensor"):
        found["pair"]
    with pytest.raises(ValueError, match="'unused' cannot be tapped: it does not run in evaluation mode"):
        found["unused"]
    with pytest.raises(ValueError, match=r"'odd' cannot be tapped: its output \[2, 2, 1, 2, 1, 2, 2\] is neither"):
        found["odd"]


def test_an_unknown_name_is_answered_with_the_nearest_ones():
    found = probe(resnet18(num_classes=5), torch.zeros(2, 3, 64, 64), same)
    with pytest.raises(ValueError, match=r"no module 'layer3.l'; nearest names: layer3.[01]"):
        found["layer3.l"]
    with pytest.raises(ValueError, match=r"no module 'zzz'; nearest names: layer1, layer2, layer3, layer4"):
        found["zzz"]


def test_the_classifier_is_the_linear_layer_that_gives_the_output():
    model = Net(Convolution(3, 4), nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 5)))
    assert probe(model, SAMPLE, same).classifier is model.classifier[2]
    assert probe(model, SAMPLE, lambda output: output / 2).classifier is None
    model.classifier.append(nn.Softmax(1))
    assert probe(model, SAMPLE, same).classifier is None


def test_named_outputs_are_left_to_the_logits_function():
    class Model(Net):
        def forward(self, images):
            return {"out": super().forward(images)}

    model = Model(Convolution(3, 4), nn.Linear(4, 5))
    found = probe(model, SAMPLE, lambda output: output["out"])
    assert found.output_shape == (5,)
    assert found.classifier is model.classifier


def test_auxiliary_classifiers_take_no_part():
    with torch.device("meta"):
        model = inception_v3(weights=None, init_weights=False, aux_logits=True)
    found = probe(model, torch.zeros(2, 3, 299, 299, device="meta"), same)
    with pytest.raises(ValueError, match="'AuxLogits' cannot be tapped: it does not run in evaluation mode"):
        found["AuxLogits"]


@pytest.mark.parametrize(
    ("sample", "logits", "message"),
    [
        (torch.zeros(3, 16, 16), same, r"sample must be \[batch, channel, height, width\], found \[3, 16, 16\]"),
        (SAMPLE, lambda output: output.mean(), r"logits must be \[batch, class\] for 2 images, found \[\]"),
        (SAMPLE, lambda output: output.T, r"logits must be \[batch, class\] for 2 images, found \[5, 2\]"),
    ],
)
def test_a_wrong_sample_or_output_is_refused(sample, logits, message):
    with pytest.raises(ValueError, match=message):
        probe(Net(Convolution(3, 4), nn.Linear(4, 5)), sample, logits)
