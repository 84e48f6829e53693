import copy
import gc
import weakref

import pytest
import torch
from torch import distributed, nn
from torch.nn.parallel import DistributedDataParallel
from torchvision.models import SwinTransformer, VisionTransformer, inception_v3, resnet18

from distill.taps import OUTPUT, Tap, TapReader, probe


def same(output):
    return output


def logits(output):
    return getattr(output, "logits", output)


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer1 = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU())
        self.layer2 = nn.Sequential(nn.Conv2d(4, 8, 3, padding=1, stride=2), nn.BatchNorm2d(8), nn.ReLU())
        self.fc = nn.Linear(8, 5)

    def forward(self, images):
        return self.fc(self.layer2(self.layer1(images)).mean((2, 3)))


@pytest.fixture
def images():
    return torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(0))


def read(model, names, images):
    found = probe(model, images, logits)
    reader = TapReader(model, [found[name] for name in names], logits)
    result = reader(images)
    reader.close()
    return result


def test_maps_are_the_models_own(images):
    model = Net().eval()
    output, taps = read(model, ["layer1", "layer2"], images)
    expected = model.layer1(images)
    assert torch.equal(taps["layer1"], expected)
    assert torch.equal(taps["layer2"], model.layer2(expected))
    assert torch.equal(taps[OUTPUT], model(images))
    assert taps[OUTPUT] is output
    assert set(taps) == {"layer1", "layer2", OUTPUT}


def test_channels_last_outputs_become_maps(images):
    model = SwinTransformer([4, 4], 8, [1, 1], [2, 2], [4, 4], num_classes=5).eval()
    _, taps = read(model, ["features.1", "norm"], images)
    by_hand = model.features[1](model.features[0](images))  # [batch, height, width, channel]
    assert by_hand.shape == (2, 4, 4, 8)
    assert taps["features.1"].shape == (2, 8, 4, 4)
    for row in range(4):
        for column in range(4):
            assert torch.equal(taps["features.1"][:, :, row, column], by_hand[:, row, column])
    assert taps["norm"].shape == (2, 16, 2, 2)


def test_tokens_become_maps_without_the_class_token(images):
    model = VisionTransformer(16, 4, 2, 2, 8, 16, num_classes=5).eval()
    _, taps = read(model, ["encoder"], images)
    patches = model._process_input(images)
    tokens = model.encoder(torch.cat([model.class_token.expand(2, -1, -1), patches], dim=1))
    assert tokens.shape == (2, 17, 8)
    assert taps["encoder"].shape == (2, 8, 4, 4)
    for row in range(4):
        for column in range(4):
            assert torch.equal(taps["encoder"][:, :, row, column], tokens[:, 1 + 4 * row + column])


def test_vectors_become_maps_of_one_place(images):
    model = Net().eval()
    _, taps = read(model, ["fc"], images)
    assert torch.equal(taps["fc"], model(images)[:, :, None, None])


@pytest.mark.parametrize("tap", ["features.1", "norm", "head"])
def test_gradient_flows_through_taps(images, tap):
    model = SwinTransformer([4, 4], 8, [1, 1], [2, 2], [4, 4], num_classes=5).train()
    _, taps = read(model, [tap], images)
    taps[tap].square().sum().backward()
    gradient = model.features[0][0].weight.grad
    assert gradient is not None
    assert gradient.abs().sum() > 0


def test_the_gradient_of_a_tap_is_that_of_the_plain_model(images):
    model = Net()
    twin = copy.deepcopy(model)
    _, taps = read(model, ["layer1"], images)
    (taps["layer1"].square().sum() + taps[OUTPUT].sum()).backward()
    features = twin.layer1(images)
    (features.square().sum() + twin.fc(twin.layer2(features).mean((2, 3))).sum()).backward()
    for ours, theirs in zip(model.parameters(), twin.parameters(), strict=True):
        assert torch.equal(ours.grad, theirs.grad)


def test_closing_leaves_the_plain_model(images):
    model = Net()
    found = probe(model, images, same)
    reader = TapReader(model, found.stages, same)
    assert model.layer1._forward_hooks
    assert list(model.state_dict()) == list(Net().state_dict())
    reader.close()
    reader.close()
    assert not any(module._forward_hooks for module in model.modules())


def test_nothing_is_kept_between_calls(images):
    model = Net()
    reader = TapReader(model, probe(model, images, same).stages, same)
    _, taps = reader(images)
    references = [weakref.ref(tensor) for tensor in taps.values()]
    del taps, _
    gc.collect()
    assert [reference() for reference in references] == [None] * 3
    kept = weakref.ref(model(images))  # a call that is not the reader's
    gc.collect()
    assert kept() is None


def test_nothing_is_kept_after_an_error(images):
    model = Net()
    reader = TapReader(model, probe(model, images, same).stages, same)
    with pytest.raises(RuntimeError):
        reader(images[:, :2])
    with pytest.raises(RuntimeError):
        reader(images[:, :2])
    _, taps = reader(images)
    assert len(taps) == 3


def test_two_readers_of_one_model_do_not_disturb_each_other(images):
    model = Net().eval()
    found = probe(model, images, same)
    first = TapReader(model, [found["layer1"]], same)
    second = TapReader(model, [found["layer2"]], same)
    assert set(first(images)[1]) == {"layer1", OUTPUT}
    first.close()
    assert set(second(images)[1]) == {"layer2", OUTPUT}


def test_an_unknown_tap_is_refused_at_construction():
    with pytest.raises(ValueError, match="no module 'layer3'; nearest names: layer"):
        TapReader(Net(), [Tap("layer3", 8, 8, 8, 2.0, "nchw")], same)


def test_what_only_training_overwrites_is_refused_at_the_first_step(images):
    class Model(Net):
        def forward(self, images):
            features = self.layer1(images)
            if self.training:
                features.mul_(0.5)
            return self.fc(self.layer2(features).mean((2, 3)))

    model = Model()
    reader = TapReader(model, probe(model, images, same).stages, same)
    model.eval()
    reader(images)
    model.train()
    with pytest.raises(ValueError, match="'layer1' was overwritten in place"):
        reader(images)


def test_a_tap_that_did_not_run_or_ran_twice_is_named(images):
    class Model(Net):
        times = 1

        def forward(self, images):
            for _ in range(self.times):
                features = self.layer1(images)
            return self.fc(self.layer2(features if self.times else images.repeat(1, 2, 1, 1)[:, :4]).mean((2, 3)))

    model = Model()
    reader = TapReader(model, probe(model, images, same).stages, same)
    model.times = 2
    with pytest.raises(ValueError, match="'layer1' ran twice"):
        reader(images)
    model.times = 0
    with pytest.raises(ValueError, match="'layer1' did not run"):
        reader(images)
    model.times = 1
    reader(images)


def test_outputs_that_carry_more_than_logits():
    with torch.device("meta"):
        model = inception_v3(weights=None, init_weights=False, aux_logits=True)
        images = torch.zeros(2, 3, 299, 299)
    found = probe(model, images, logits)
    reader = TapReader(model, found.stages, logits)
    output, taps = reader(images)  # training mode: a named tuple
    assert output.aux_logits.shape == (2, 1000)
    assert taps[OUTPUT] is output.logits
    assert [taps[tap.name].shape[1:] for tap in found.stages] == [tap.shape for tap in found.stages]


def test_autocast_and_channels_last_change_type_and_memory_alone(images):
    model = resnet18(num_classes=5).eval().to(memory_format=torch.channels_last)
    images = images.repeat(1, 1, 4, 4)
    found = probe(model, images, same)
    reader = TapReader(model, found.stages, same)
    _, plain = reader(images)
    with torch.autocast("cpu", torch.bfloat16):
        _, mixed = reader(images.to(memory_format=torch.channels_last))
    for tap in found.stages:
        assert mixed[tap.name].shape == (2, *tap.shape)
        assert plain[tap.name].shape == (2, *tap.shape)
        torch.testing.assert_close(mixed[tap.name].float(), plain[tap.name], rtol=0.1, atol=0.1)
    assert mixed[OUTPUT].dtype == torch.bfloat16


def test_inference_mode_is_allowed(images):
    model = Net().eval()
    reader = TapReader(model, probe(model, images, same).stages, same)
    with torch.inference_mode():
        _, taps = reader(images)
    assert torch.equal(taps["layer1"], model.layer1(images))


def test_taps_work_inside_distributed_data_parallel(images):
    class Reading(nn.Module):
        def __init__(self, student):
            super().__init__()
            self.student = student
            self.reader = TapReader(student, probe(student, images, same).stages, same)

        def forward(self, images):
            _, taps = self.reader(images)
            return sum(tap.square().sum() for tap in taps.values())

    alone, shared = Reading(Net()), None
    twin = copy.deepcopy(alone.student)
    distributed.init_process_group("gloo", store=distributed.HashStore(), rank=0, world_size=1)
    try:
        shared = DistributedDataParallel(Reading(twin))
        shared(images).backward()
    finally:
        distributed.destroy_process_group()
    alone(images).backward()
    for ours, theirs in zip(alone.student.parameters(), twin.parameters(), strict=True):
        torch.testing.assert_close(ours.grad, theirs.grad)
