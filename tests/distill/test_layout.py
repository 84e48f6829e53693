import pytest
import torch
from tap_samples import same
from torchvision.models import SwinTransformer, convnext_tiny

from distill.taps import Tap, probe
from distill.taps.layout import describe

SQUARE = (2, 3, 224, 224)


@pytest.mark.parametrize(
    ("shape", "sample", "grid", "hint", "expected"),
    [
        ((2, 96, 56, 56), SQUARE, None, {}, ("nchw", 96, 56, 56, 0)),
        ((2, 56, 56, 96), SQUARE, None, {}, ("nhwc", 96, 56, 56, 0)),
        ((2, 56, 56, 56), SQUARE, None, {}, ("nchw", 56, 56, 56, 0)),
        ((2, 56, 56, 56), SQUARE, None, {"hint": "nhwc"}, ("nhwc", 56, 56, 56, 0)),
        ((2, 96, 56, 56), SQUARE, None, {"hint": "nhwc"}, ("nchw", 96, 56, 56, 0)),  # the shape outweighs the hint
        ((2, 512, 1, 1), SQUARE, None, {}, ("nchw", 512, 1, 1, 0)),
        ((2, 1, 1, 512), SQUARE, None, {}, ("nhwc", 512, 1, 1, 0)),
        ((2, 64, 28, 56), SQUARE, None, {}, None),
        ((2, 197, 768), SQUARE, (14, 14), {}, ("tokens", 768, 14, 14, 1)),
        ((2, 196, 768), SQUARE, (14, 14), {}, ("tokens", 768, 14, 14, 0)),
        ((2, 197, 768), SQUARE, None, {}, ("tokens", 768, 14, 14, 1)),
        ((2, 50, 768), SQUARE, (14, 14), {}, ("tokens", 768, 7, 7, 1)),
        ((2, 201, 768), SQUARE, (14, 14), {}, ("tokens", 768, 14, 14, 5)),
        ((2, 195, 64), SQUARE, None, {}, None),  # 169 cells would leave 26 tokens over
        ((2, 1000), SQUARE, None, {}, ("vector", 1000, 1, 1, 0)),
        ((128, 49, 96), SQUARE, None, {}, None),  # windows folded into the batch
        ((2, 64, 14, 20), (2, 3, 224, 320), None, {}, ("nchw", 64, 14, 20, 0)),
        ((2, 14, 20, 64), (2, 3, 224, 320), None, {}, ("nhwc", 64, 14, 20, 0)),
        ((2, 281, 64), (2, 3, 224, 320), (14, 20), {}, ("tokens", 64, 14, 20, 1)),
        ((2, 281, 64), (2, 3, 224, 320), None, {}, None),
        ((2, 4, 1, 1, 1), SQUARE, None, {}, None),
    ],
)
def test_layouts(shape, sample, grid, hint, expected):
    tap = describe("name", shape, sample, grid=grid, **hint)
    if expected is None:
        assert tap is None
        return
    assert tap is not None
    assert (tap.layout, tap.channels, tap.height, tap.width, tap.num_prefix) == expected
    assert tap.stride == pytest.approx(sample[2] / tap.height)


@pytest.mark.parametrize(
    ("stride_one", "octave"), [(224 / 54, 2), (224 / 55, 2), (224 / 13, 4), (299 / 17, 4), (299 / 8, 5), (1.0, 0)]
)
def test_octaves_absorb_padding(stride_one, octave):
    assert Tap("name", 8, 4, 4, stride_one, "nchw").octave == octave


def test_the_layout_of_a_cube_is_that_of_the_modules_around_it():
    with torch.device("meta"):
        swin = SwinTransformer([4, 4], 32, [1, 1], [2, 2], [4, 4], num_classes=5)
        convnext = convnext_tiny(num_classes=5)
    found = probe(swin, torch.zeros(2, 3, 128, 128, device="meta"), same)
    assert (found["features.1"].height, found["features.1"].channels, found["features.1"].layout) == (32, 32, "nhwc")
    found = probe(convnext, torch.zeros(2, 3, 384, 384, device="meta"), same)
    assert (found["features.1"].height, found["features.1"].channels, found["features.1"].layout) == (96, 96, "nchw")
