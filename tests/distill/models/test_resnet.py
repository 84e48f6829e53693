import pytest
import torch
import torch.nn.functional as F
from torch import nn

from distill.models import ResNet8, ResNet8x4, ResNet14, ResNet20, ResNet32, ResNet56


def num_parameters(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


def test_resnet20_parameters_by_hand():
    # He et al. count 0.27 million; with zero-padding shortcuts it is 269,722, and option B adds two projections.
    stem = 3 * 16 * 9 + 2 * 16
    layer1 = 3 * (2 * 16 * 16 * 9 + 2 * 2 * 16)
    layer2 = (16 * 32 * 9 + 5 * 32 * 32 * 9) + 6 * 2 * 32
    layer3 = (32 * 64 * 9 + 5 * 64 * 64 * 9) + 6 * 2 * 64
    head = 64 * 10 + 10
    assert stem + layer1 + layer2 + layer3 + head == 269_722
    projections = (16 * 32 + 2 * 32) + (32 * 64 + 2 * 64)
    assert num_parameters(ResNet20(num_classes=10)) == 269_722 + projections


@pytest.mark.parametrize(
    ("factory", "num_blocks"), [(ResNet8, 1), (ResNet14, 2), (ResNet20, 3), (ResNet32, 5), (ResNet56, 9)]
)
@pytest.mark.parametrize("width", [16, 24])
def test_depth_and_width(factory, num_blocks, width):
    w, classes, channels = width, 100, 1
    stem = channels * w * 9 + 2 * w
    layer1 = num_blocks * (2 * 9 * w * w + 4 * w)
    layer2 = 9 * (2 * w * w + (2 * num_blocks - 1) * 4 * w * w) + num_blocks * 8 * w + (2 * w * w + 4 * w)
    layer3 = 9 * (8 * w * w + (2 * num_blocks - 1) * 16 * w * w) + num_blocks * 16 * w + (8 * w * w + 8 * w)
    head = classes * (4 * w + 1)
    model = factory(num_classes=classes, in_channels=channels, width=width)
    assert num_parameters(model) == stem + layer1 + layer2 + layer3 + head


def test_resnet8x4_parameters_by_hand():
    stem = 3 * 32 * 9 + 64
    layer1 = 9 * (32 * 64 + 64 * 64) + 4 * 64 + (32 * 64 + 2 * 64)
    layer2 = 9 * (64 * 128 + 128 * 128) + 4 * 128 + (64 * 128 + 2 * 128)
    layer3 = 9 * (128 * 256 + 256 * 256) + 4 * 256 + (128 * 256 + 2 * 256)
    assert num_parameters(ResNet8x4(num_classes=100)) == stem + layer1 + layer2 + layer3 + 100 * 257 == 1_233_540


def reference_block(state, prefix, x, stride):
    def norm(name, x):
        values = [state[f"{prefix}.{name}.{key}"] for key in ("running_mean", "running_var", "weight", "bias")]
        return F.batch_norm(x, *values, training=False)

    y = norm("bn1", F.conv2d(x, state[f"{prefix}.conv1.weight"], stride=stride, padding=1)).clamp(min=0)
    y = norm("bn2", F.conv2d(y, state[f"{prefix}.conv2.weight"], padding=1))
    if f"{prefix}.shortcut.0.weight" in state:
        x = norm("shortcut.1", F.conv2d(x, state[f"{prefix}.shortcut.0.weight"], stride=stride))
    return (x + y).clamp(min=0)


@pytest.mark.parametrize("factory", [ResNet8, ResNet20, ResNet8x4])
def test_forward_is_that_of_the_paper(factory):
    torch.manual_seed(0)
    model = factory(num_classes=10).eval()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            for values in (module.running_mean, module.running_var, module.weight.data, module.bias.data):
                values.uniform_(0.5, 1.5)
    state = model.state_dict()
    images = torch.randn(3, 3, 32, 32)
    x = F.conv2d(images, state["stem.0.weight"], padding=1)
    norm = [state[f"stem.1.{key}"] for key in ("running_mean", "running_var", "weight", "bias")]
    x = F.batch_norm(x, *norm, training=False).clamp(min=0)
    for stage in (1, 2, 3):
        for block in range(len(getattr(model, f"layer{stage}"))):
            x = reference_block(state, f"layer{stage}.{block}", x, 2 if stage > 1 and block == 0 else 1)
    logits = F.linear(x.mean((2, 3)), state["fc.weight"], state["fc.bias"])
    with torch.no_grad():
        torch.testing.assert_close(model(images), logits, rtol=1e-5, atol=1e-5)


def test_convolutions_start_as_he_et_al():
    torch.manual_seed(0)
    model = ResNet8x4(num_classes=10)
    weight = model.layer3[0].conv2.weight  # 589,824 draws: the deviation of their deviation is 0.1%
    assert weight.std().item() == pytest.approx((2 / (9 * 256)) ** 0.5, rel=0.005)


def test_learns_random_labels_by_heart_in_channels_last():
    torch.manual_seed(0)
    model = ResNet8(num_classes=10).to(memory_format=torch.channels_last)
    images = torch.randn(32, 3, 16, 16).to(memory_format=torch.channels_last)
    labels = torch.randint(0, 10, (32,))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    formats = []
    model.layer3.register_forward_hook(
        lambda module, inputs, output: formats.append(output.is_contiguous(memory_format=torch.channels_last))
    )
    for _ in range(25):
        optimizer.zero_grad()
        F.cross_entropy(model(images), labels).backward()
        optimizer.step()
    assert (model(images).argmax(1) == labels).all()
    assert all(formats)


def test_width_below_one_is_refused():
    with pytest.raises(ValueError, match="width must be a whole number of at least 1, found 0"):
        ResNet8(num_classes=10, width=0)
