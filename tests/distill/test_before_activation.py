"""Taps in front of activation functions: what a ReLU at the end of a stage gets to see, out of unmodified models."""

import copy
import weakref

import pytest
import torch
import torch.nn.functional as F
from tap_samples import SAMPLE, Convolution, Net, same
from torch import nn
from torch._dynamo.testing import CompileCounterWithBackend
from torchvision.models import VisionTransformer, convnext_tiny, mobilenet_v2, resnet18, resnet50, vgg11

from distill.models import ResNet8, WideResNet
from distill.paths import AB, OFD
from distill.taps import OUTPUT, Tap, TapReader, probe


@pytest.fixture
def images():
    return torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0)) - 0.5


def settle(model):
    """Give BatchNorm statistics and weights that are not 0 and 1."""
    generator = torch.Generator().manual_seed(1)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.copy_(0.3 * torch.randn(module.num_features, generator=generator))
            module.weight.data.add_(0.3 * torch.randn(module.num_features, generator=generator))
    return model


def read(model, name, images):
    """Return the tap in front of the activation that ends `name`, what is read there, and what the model returned."""
    found = probe(model, images, same)
    tap = found.before_activation(name)
    assert tap.shape == found[name].shape
    reader = TapReader(model, [tap], same)
    output, taps = reader(images)
    reader.close()
    assert set(taps) == {tap.name, OUTPUT}
    assert taps[tap.name].shape == (len(images), *tap.shape)
    return tap, taps[tap.name], output


def test_the_residual_sum_of_a_torchvision_block(images):
    """The block calls one in-place ReLU twice; the sum enters its last call."""
    model = settle(resnet18(num_classes=5)).eval()
    tap, found, output = read(model, "layer2", images)
    assert (tap.name, tap.entering, tap.module) == ("layer2.1.relu:input", 1, "layer2.1.relu")
    features = model.maxpool(model.relu(model.bn1(model.conv1(images))))
    features = model.layer2[0](model.layer1(features))
    block = model.layer2[1]
    by_hand = block.bn2(block.conv2(F.relu(block.bn1(block.conv1(features))))) + features
    assert torch.equal(found, by_hand)
    assert (found < 0).any()
    assert torch.equal(F.relu(found), model.layer2(model.layer1(model.maxpool(F.relu(model.bn1(model.conv1(images)))))))
    assert torch.equal(output, model(images))


def test_the_last_of_three_calls_in_a_bottleneck(images):
    model = settle(resnet50(num_classes=5)).eval()
    tap, found, _ = read(model, "layer1", images)
    assert (tap.name, tap.entering) == ("layer1.2.relu:input", 2)
    _, activated = TapReader(model, [probe(model, images, same)["layer1"]], same)(images)
    assert torch.equal(F.relu(found), activated["layer1"])


@pytest.mark.parametrize("mode", [True, False], ids=["training", "evaluation"])
def test_the_gradient_is_that_of_the_plain_model(images, mode):
    model = settle(resnet18(num_classes=5)).train(mode)
    twin = copy.deepcopy(model)
    _, found, output = read(model, "layer1", images)
    (found.square().sum() + output.sum()).backward()

    features = twin.maxpool(F.relu(twin.bn1(twin.conv1(images))))
    features = twin.layer1[0](features)
    block = twin.layer1[1]
    before = block.bn2(block.conv2(F.relu(block.bn1(block.conv1(features))))) + features
    rest = twin.layer4(twin.layer3(twin.layer2(F.relu(before))))
    (before.square().sum() + twin.fc(rest.mean((2, 3))).sum()).backward()
    for (name, ours), theirs in zip(model.named_parameters(), twin.parameters(), strict=True):
        assert ours.grad.abs().sum() > 0, name
        torch.testing.assert_close(ours.grad, theirs.grad, rtol=1e-4, atol=1e-5)


def test_a_linear_bottleneck_is_read_as_it_is(images):
    model = settle(mobilenet_v2(num_classes=5)).eval()
    found = probe(model, images, same)
    assert found.before_activation("features.3") == found["features.3"]
    tap, values, _ = read(model, "features", images)
    assert (tap.name, tap.entering) == ("features.18.2:input", 0)
    assert torch.equal(F.relu6(values), model.features(images))
    assert (values < 0).any()


def test_in_place_relus_of_a_vgg(images):
    model = vgg11(num_classes=5).eval()
    found = probe(model, images, same)
    assert [found.before_activation(tap.name).name for tap in found.stages] == [
        "features.1:input",
        "features.4:input",
        "features.9:input",
        "features.14:input",
        "features.19:input",
    ]
    _, values, output = read(model, "features.4", images)
    assert torch.equal(values, model.features[:4](images))
    assert torch.equal(output, model(images))
    # The last feature is a pooling of activations, not an activation.
    assert found.before_activation("features") == found["features"]


def test_own_resnet_ends_in_a_module(images):
    model = settle(ResNet8(num_classes=5, width=4)).eval()
    found = probe(model, images, same)
    assert [found.before_activation(tap.name).name for tap in found.stages] == [
        f"layer{number}.0.relu:input" for number in (1, 2, 3)
    ]
    _, values, _ = read(model, "layer1", images)
    features, block = model.stem(images), model.layer1[0]
    by_hand = block.bn2(block.conv2(F.relu(block.bn1(block.conv1(features))))) + block.shortcut(features)
    assert torch.equal(values, by_hand)


def test_own_wide_resnet_ends_before_its_activation(images):
    model = settle(WideResNet(depth=10, widen=1, num_classes=5)).eval()
    found = probe(model, images, same)
    assert [tap.name for tap in found.stages] == ["layer1", "layer2", "norm"]
    assert [found.before_activation(tap.name).name for tap in found.stages] == ["layer1", "layer2", "norm.1:input"]
    assert found.before_activation("layer3") == found["layer3"]
    _, values, _ = read(model, "layer1", images)
    assert torch.equal(values, model.layer1(model.stem(images)))  # the sum itself
    assert (values < 0).any()


def test_transformer_blocks_are_read_as_they_are(images):
    model = VisionTransformer(32, 8, 2, 2, 8, 16, num_classes=5)
    found = probe(model, images, same)
    for name in ("encoder.layers.encoder_layer_0", "encoder.layers.encoder_layer_1", "encoder"):
        assert found.before_activation(name) == found[name]
    tap = found.before_activation("encoder.layers.encoder_layer_0.mlp.1")  # its GELU
    assert (tap.name, tap.layout, tap.num_prefix) == ("encoder.layers.encoder_layer_0.mlp.1:input", "tokens", 1)
    _, values, _ = read(model.eval(), "encoder.layers.encoder_layer_0.mlp.1", images)
    _, activated = TapReader(model, [found["encoder.layers.encoder_layer_0.mlp.1"]], same)(images)
    torch.testing.assert_close(F.gelu(values), activated["encoder.layers.encoder_layer_0.mlp.1"])


def test_channels_last_activations_keep_their_layout(images):
    model = convnext_tiny(num_classes=5).eval()
    tap, values, _ = read(model, "features.1.0.block.4", images)  # GELU between two linear layers
    assert tap.layout == "nhwc"
    assert values.shape == (2, 384, 8, 8)


class Ending(nn.Module):
    """A model whose only stage ends as a test wants it to."""

    def __init__(self, end, **modules):
        super().__init__()
        self.block = self.Block(end, modules)
        self.fc = nn.Linear(4, 5)

    class Block(nn.Module):
        def __init__(self, end, modules):
            super().__init__()
            self.conv = nn.Conv2d(3, 4, 3, padding=1)
            self.norm = nn.BatchNorm2d(4)
            self.end = end
            for name, module in modules.items():
                self.add_module(name, module)

        def forward(self, features):
            return self.end(self, self.norm(self.conv(features)))

    def forward(self, images):
        return self.fc(self.block(images).mean((2, 3)))


FUNCTIONS = {
    "F.relu": lambda _, x: F.relu(x),
    "F.relu in place": lambda _, x: F.relu(x, inplace=True),
    "torch.relu": lambda _, x: torch.relu(x),
    "torch.relu_": lambda _, x: torch.relu_(x),
    "Tensor.relu": lambda _, x: x.relu(),
    "Tensor.relu_": lambda _, x: x.relu_(),
    "F.gelu": lambda _, x: F.gelu(x),
    "F.silu": lambda _, x: F.silu(x),
    "F.leaky_relu": lambda _, x: F.leaky_relu(x, 0.1),
    "F.hardswish": lambda _, x: F.hardswish(x),
    "F.relu6": lambda _, x: F.relu6(x),
}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_a_function_at_the_end_of_a_stage_is_refused(name):
    model = Ending(FUNCTIONS[name])
    found = probe(model, SAMPLE, same)
    assert found.before_activation("block.conv") == found["block.conv"]
    with pytest.raises(ValueError, match=r"'block' ends in an activation function that is no module.* nn.ReLU"):
        found.before_activation("block")
    for path in (AB(), OFD()):
        with pytest.raises(ValueError, match="'block' ends in an activation function"):
            path.connect(found, found)


MODULES = [
    nn.ReLU(),
    nn.ReLU(inplace=True),
    nn.LeakyReLU(),
    nn.PReLU(),
    nn.GELU(),
    nn.SiLU(True),
    nn.Hardswish(),
    nn.ELU(),
]


@pytest.mark.parametrize("module", MODULES, ids=str)
def test_a_module_at_the_end_of_a_stage_is_read(module):
    model = Ending(lambda block, x: block.act(x), act=module).eval()
    images = torch.randn(2, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    tap, values, _ = read(model, "block", images)
    assert tap == Tap("block.act:input", 4, 16, 16, 1.0, "nchw", entering=0)
    assert torch.equal(values, model.block.norm(model.block.conv(images)))
    assert (values < 0).any()


def _changed_in_place(block, x):
    activated = block.act(x)
    activated += 1
    return activated


def _changed_through_a_view(block, x):
    activated = block.act(x)
    activated[:, :1].mul_(2)
    return activated


@pytest.mark.parametrize(
    "end",
    [
        _changed_in_place,
        _changed_through_a_view,
        lambda block, x: block.act(x) + x,
        lambda block, x: torch.cat([block.act(x)[:, :2], x[:, 2:]], dim=1),
        lambda block, x: F.avg_pool2d(block.act(x), 2),
        lambda block, x: block.act(x)[:, :, ::2, ::2],
    ],
    ids=["in place", "through a view", "sum", "concatenation", "pooling", "part"],
)
def test_what_was_changed_after_an_activation_is_none(end):
    for act in (nn.ReLU(), nn.ReLU(inplace=True)):
        found = probe(Ending(end, act=act), SAMPLE, same)
        assert found.before_activation("block") == found["block"]


def test_dropout_behind_an_activation_is_seen_through():
    model = Ending(lambda block, x: block.dropout(block.act(x)), act=nn.ReLU(), dropout=nn.Dropout(0.5))
    assert probe(model, SAMPLE, same).before_activation("block").name == "block.act:input"


def test_a_function_that_halves_its_channels_is_no_activation():
    model = Ending(lambda block, x: block.act(x), act=nn.GLU(dim=1))
    model.fc = nn.Linear(2, 5)
    found = probe(model, SAMPLE, same)
    assert found.before_activation("block") == found["block"]


class Shared(nn.Module):
    """Two stages that end in calls of one and the same ReLU."""

    def __init__(self):
        super().__init__()
        relu = nn.ReLU(inplace=True)
        self.layer1 = self.Block(3, 4, relu)
        self.layer2 = self.Block(4, 8, relu)
        self.fc = nn.Linear(8, 5)

    class Block(nn.Module):
        def __init__(self, in_channels, out_channels, relu):
            super().__init__()
            self.conv1 = nn.Conv2d(in_channels, out_channels, 3, padding=1, stride=2)
            self.conv2 = nn.Conv2d(out_channels, out_channels, 3, padding=1)
            self.relu = relu

        def forward(self, features):
            return self.relu(self.conv2(self.relu(self.conv1(features))))

    def forward(self, images):
        return self.fc(self.layer2(self.layer1(images)).mean((2, 3)))


def test_one_function_that_ends_two_stages_is_two_taps(images):
    model = Shared().eval()
    found = probe(model, images, same)
    taps = [found.before_activation(name) for name in ("layer1", "layer2")]
    assert [(tap.name, tap.module, tap.entering) for tap in taps] == [
        ("layer1.relu:input1", "layer1.relu", 1),
        ("layer1.relu:input3", "layer1.relu", 3),
    ]
    assert [found[tap.name] for tap in taps] == taps
    reader = TapReader(model, taps, same)
    _, values = reader(images)
    first = model.layer1.conv2(F.relu(model.layer1.conv1(images)))
    second = model.layer2.conv2(F.relu(model.layer2.conv1(F.relu(first))))
    assert torch.equal(values["layer1.relu:input1"], first)
    assert torch.equal(values["layer1.relu:input3"], second)


def test_a_tap_before_an_activation_has_a_name_of_its_own():
    found = probe(resnet18(num_classes=5), torch.zeros(2, 3, 32, 32), same)
    tap = found.before_activation("layer1")
    assert found["layer1.1.relu:input"] == tap
    assert found.before_activation("layer1.1.relu:input") == tap
    for name in ("layer1.0.relu:inputs", "layer9.relu:input", "layer1.1.conv1:input"):
        with pytest.raises(ValueError, match="has no module"):
            found[name]


def test_shapes_agree_between_meta_and_cpu():
    for make in (lambda: resnet18(num_classes=5), lambda: ResNet8(num_classes=5), Shared):
        model = make()
        here = probe(model, torch.zeros(2, 3, 32, 32), same)
        meta = probe(model.to("meta"), torch.zeros(2, 3, 32, 32, device="meta"), same)
        assert dict(here.unactivated) == dict(meta.unactivated)


def test_reading_on_the_meta_device():
    model = resnet18(num_classes=5).to("meta")
    images = torch.zeros(2, 3, 32, 32, device="meta")
    tap = probe(model, images, same).before_activation("layer3")
    assert TapReader(model, [tap], same)(images)[1][tap.name].shape == (2, 256, 2, 2)


def test_the_model_stops_where_all_was_read(images):
    model = settle(resnet18(num_classes=5)).eval()
    found = probe(model, images, same)
    taps = [found.before_activation("layer1"), found.before_activation("layer2")]
    reader = TapReader(model, taps, same)
    ran = []
    handles = [
        module.register_forward_hook(lambda *_, name=name: ran.append(name)) for name, module in model.named_modules()
    ]
    with torch.no_grad():
        whole = reader(images)[1]
        ran.clear()
        early = reader.read(images, only=[taps[1].name])
    assert set(early) == {taps[1].name}
    assert torch.equal(early[taps[1].name], whole[taps[1].name])
    assert ran[-1] == "layer2.1.bn2"
    assert ran.count("layer2.1.relu") == 1  # the second call never ran
    assert not {"layer2.1", "layer3", "fc"} & set(ran)
    with torch.no_grad():
        ran.clear()
        assert set(reader.read(images, only=[taps[0].name, OUTPUT])) == {taps[0].name, OUTPUT}
        assert "fc" in ran
    for handle in handles:
        handle.remove()


def test_no_trace_is_left_on_the_model(images):
    model = settle(resnet18(num_classes=5)).train()
    state = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    found = probe(model, images, same)
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())
    assert all(torch.equal(tensor, state[name]) for name, tensor in model.state_dict().items())
    reader = TapReader(model, [found.before_activation("layer1")], same)
    assert model.layer1[1].relu._forward_pre_hooks
    reader(images)
    reader.close()
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())


def test_nothing_is_kept_between_calls(images):
    model = ResNet8(num_classes=5, width=4)
    reader = TapReader(model, [probe(model, images, same).before_activation("layer1")], same)
    _, taps = reader(images)
    references = [weakref.ref(tensor) for tensor in taps.values()]
    del taps, _
    assert [reference() for reference in references] == [None] * 2
    kept = weakref.ref(model(images))  # a call that is not the reader's
    assert kept() is None


def test_an_activation_that_runs_less_often_is_named(images):
    model = Shared().eval()
    found = probe(model, images, same)
    reader = TapReader(model, [found.before_activation("layer2")], same)
    model.layer2.relu = nn.ReLU()
    with pytest.raises(ValueError, match=r"'layer1\.relu:input3' did not run"):
        reader(images)


def test_what_enters_a_relu_and_is_changed_later_is_refused(images):
    """The input of a ReLU that is not in place is the model's own tensor."""

    def end(block, x):
        activated = block.act(x)
        if block.training:
            x.add_(1)
        return activated

    model = Ending(end, act=nn.ReLU())
    reader = TapReader(model.eval(), [probe(model, images, same).before_activation("block")], same)
    reader(images)
    model.train()
    with pytest.raises(ValueError, match=r"'block\.act:input' was overwritten in place"):
        reader(images)


class Reading(nn.Module):
    """A model that returns what is read in front of its activations."""

    def __init__(self, model, names, images):
        super().__init__()
        self.model = model
        found = probe(model, images, same)
        self.taps = [found.before_activation(name) for name in names]
        self.reader = TapReader(model, self.taps, same)

    def forward(self, images):
        output, taps = self.reader(images)
        return output, *(taps[tap.name] for tap in self.taps)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("make", "names"),
    [
        (lambda: settle(resnet18(num_classes=5)), ["layer1", "layer4"]),
        (lambda: settle(ResNet8(num_classes=5, width=4)), ["layer1", "layer3"]),
        (Shared, ["layer1", "layer2"]),
    ],
    ids=["in place, called twice", "one module a block", "one module for all"],
)
def test_reading_compiles_to_one_graph(images, make, names):
    torch._dynamo.reset()
    module = Reading(make(), names, images)
    twin = copy.deepcopy(module.model)
    counter = CompileCounterWithBackend("aot_eager")
    compiled = torch.compile(module, backend=counter, fullgraph=True)
    eager = Reading(twin, names, images)
    for _ in range(2):
        for found, wanted in zip(compiled(images), eager(images), strict=True):
            torch.testing.assert_close(found, wanted)
    sum(values.square().sum() for values in compiled(images)).backward()
    sum(values.square().sum() for values in eager(images)).backward()
    for ours, theirs in zip(module.model.parameters(), twin.parameters(), strict=True):
        torch.testing.assert_close(ours.grad, theirs.grad, rtol=1e-4, atol=1e-4)
    assert counter.frame_count == 1
    torch._dynamo.reset()


def test_a_convolution_of_a_plain_net_is_read(images):
    model = Net(nn.Sequential(Convolution(3, 4), Convolution(4, 8, 2)), nn.Linear(8, 5)).eval()
    _, values, _ = read(model, "features.0", images)
    assert torch.equal(values, model.features[0][1](model.features[0][0](images)))
