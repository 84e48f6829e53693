import itertools

import numpy as np
import pytest
import torch
from torchvision.transforms.v2 import functional

from distill.counter_random import uniform
from distill.data.transforms import ColorJitter

ADJUST = (functional.adjust_brightness, functional.adjust_contrast, functional.adjust_saturation)


def reference(image, row, strengths):
    """torchvision's own functions, in the order and by the factors of one image's draws."""
    order = list(itertools.permutations(range(3)))[int(row[0] * 6)]
    for kind in order:
        low = max(0.0, 1 - strengths[kind])
        factor = low + (1 + strengths[kind] - low) * row[1 + kind]
        if strengths[kind]:
            image = ADJUST[kind](image, factor)
    return image


@pytest.mark.parametrize(
    "strengths", [(0.4, 0.4, 0.4), (0.8, 0.0, 0.0), (0.0, 1.5, 0.0), (0.0, 0.0, 0.9), (0, 0.5, 0.5)]
)
@pytest.mark.parametrize("channels", [1, 3])
def test_bytes_are_torchvision_s(strengths, channels):
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (60, channels, 9, 11), dtype=torch.uint8, generator=generator)
    draws = uniform(0, 0, np.arange(60), 4)
    result = ColorJitter(*strengths)(images, draws)
    expected = torch.stack([reference(*each, strengths) for each in zip(images, draws.tolist(), strict=True)])
    difference = (result.int() - expected.int()).abs()
    # torchvision fuses multiplication and addition, so a value next to a whole level may be cut to its neighbour,
    # and the next adjustment may stretch that to two levels.
    assert difference.max() <= 2
    assert (difference > 0).float().mean() < 0.01


@pytest.mark.parametrize("channels", [1, 3])
def test_floats_are_torchvision_s(channels):
    images = torch.rand((60, channels, 9, 11), generator=torch.Generator().manual_seed(0))
    draws = uniform(0, 0, np.arange(60), 4)
    result = ColorJitter(0.6, 0.6, 0.6)(images, draws)
    expected = torch.stack([reference(*each, (0.6,) * 3) for each in zip(images, draws.tolist(), strict=True)])
    assert result.allclose(expected, atol=1e-5)


def test_all_orders_and_the_whole_range_of_factors_occur():
    # Brightness alone, of an image of 100: the result is the factor.
    images = torch.full((5000, 1, 1, 1), 100.0) / 1000
    factors = ColorJitter(brightness=0.5)(images, uniform(0, 0, np.arange(5000), 4)).flatten() * 10
    assert factors.min() == pytest.approx(0.5, abs=0.01)
    assert factors.max() == pytest.approx(1.5, abs=0.01)
    assert factors.mean() == pytest.approx(1.0, abs=0.02)


def test_strengths_must_not_be_negative():
    with pytest.raises(ValueError, match="contrast must be 0 or more"):
        ColorJitter(contrast=-0.1)
