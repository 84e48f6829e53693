import pytest
import torch
import torch.nn.functional as F
from torch import nn

from distill.models import WRN_16_1, WRN_16_2, WRN_40_2, WideResNet


def num_parameters(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


def stage(n: int, a: int, b: int) -> int:
    """n blocks from width a to width b: convolutions, shortcut where a != b, BatchNorm before each convolution."""
    convolutions = 9 * (a * b + (2 * n - 1) * b * b) + (a * b if a != b else 0)
    return convolutions + 2 * a + (2 * n - 1) * 2 * b


@pytest.mark.parametrize(("depth", "widen", "golden"), [(40, 2, 2_255_156), (16, 2, 703_284), (40, 1, 569_780)])
def test_parameters_by_hand_and_of_the_reference_models(depth, widen, golden):
    n, w = (depth - 4) // 6, 16 * widen
    by_hand = 3 * 16 * 9 + stage(n, 16, w) + stage(n, w, 2 * w) + stage(n, 2 * w, 4 * w) + 8 * w + 100 * (4 * w + 1)
    assert num_parameters(WideResNet(depth=depth, widen=widen, num_classes=100)) == by_hand == golden


def test_widen_one_has_no_first_shortcut():
    assert WRN_16_1(num_classes=100).layer1[0].shortcut is None
    by_hand = 432 + stage(2, 16, 16) + stage(2, 16, 32) + stage(2, 32, 64) + 128 + 6_500
    assert num_parameters(WRN_16_1(num_classes=100)) == by_hand == 180_916


def reference(model: nn.Module, images: torch.Tensor) -> torch.Tensor:
    state = model.state_dict()

    def activate(prefix, x):
        values = [state[f"{prefix}.{key}"] for key in ("running_mean", "running_var", "weight", "bias")]
        return F.batch_norm(x, *values, training=False).clamp(min=0)

    x = F.conv2d(images, state["stem.weight"], padding=1)
    for number in (1, 2, 3):
        for block in range(len(getattr(model, f"layer{number}"))):
            prefix, stride = f"layer{number}.{block}", 2 if number > 1 and block == 0 else 1
            activated = activate(f"{prefix}.bn1", x)
            y = F.conv2d(activated, state[f"{prefix}.conv1.weight"], stride=stride, padding=1)
            y = F.conv2d(activate(f"{prefix}.bn2", y), state[f"{prefix}.conv2.weight"], padding=1)
            if f"{prefix}.shortcut.weight" in state:
                x = F.conv2d(activated, state[f"{prefix}.shortcut.weight"], stride=stride)
            x = x + y
    return F.linear(activate("norm.0", x).mean((2, 3)), state["fc.weight"], state["fc.bias"])


@pytest.mark.parametrize("widen", [1, 2])
def test_forward_is_that_of_the_authors_code(widen):
    torch.manual_seed(0)
    model = WideResNet(depth=16, widen=widen, num_classes=10).eval()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            for values in (module.running_mean, module.running_var, module.weight.data, module.bias.data):
                values.uniform_(0.5, 1.5)
    images = torch.randn(3, 3, 32, 32)
    with torch.no_grad():
        torch.testing.assert_close(model(images), reference(model, images), rtol=1e-5, atol=1e-4)


def test_head_starts_without_bias():
    assert WRN_16_2(num_classes=10).fc.bias.abs().sum() == 0


def zeros_before_second_convolutions(model: nn.Module, images: torch.Tensor) -> list[float]:
    shares: list[float] = []
    handles = [
        module.register_forward_pre_hook(lambda module, inputs: shares.append((inputs[0] == 0).float().mean().item()))
        for name, module in model.named_modules()
        if name.endswith("conv2")
    ]
    model(images)
    for handle in handles:
        handle.remove()
    return shares


def test_dropout_acts_between_the_convolutions_in_training_only():
    torch.manual_seed(0)
    model = WRN_16_1(num_classes=10, dropout=0.5)
    images = torch.randn(8, 3, 16, 16)
    dropping = zeros_before_second_convolutions(model, images)
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    plain = zeros_before_second_convolutions(model, images)
    # ReLU leaves a share r of zeros, dropout then zeros half of the rest
    assert dropping == pytest.approx([(1 + r) / 2 for r in plain], abs=0.03)
    model = WRN_16_1(num_classes=10, dropout=0.5).eval()
    assert torch.equal(model(images), model(images))


@pytest.mark.parametrize("depth", [0, 4, 17, 20])
def test_impossible_depth_is_refused(depth):
    with pytest.raises(ValueError, match=r"depth must be .*, found "):
        WideResNet(depth=depth, widen=1, num_classes=10)


def test_depth_error_gives_examples():
    with pytest.raises(ValueError, match=r"depth must be 6n\+4 \(such as 10, 16, 22, 34, 40\), found 18"):
        WideResNet(depth=18, widen=1, num_classes=10)


@pytest.mark.parametrize("dropout", [-0.1, 1.0, float("nan")])
def test_impossible_dropout_is_refused(dropout):
    with pytest.raises(ValueError, match="dropout must be at least 0 and below 1"):
        WRN_40_2(num_classes=10, dropout=dropout)
