import numpy as np
import pytest
import torch
from scipy import stats
from torchvision.transforms.v2 import functional

from distill.counter_random import uniform
from distill.data.transforms import RandomCrop
from distill.data.transforms.random_crop import _windows


@pytest.mark.parametrize(("size", "padding"), [(None, 4), (None, 1), (9, 0), (10, 2)])
def test_equals_torchvision_s_pad_and_crop(size, padding):
    images = torch.randint(0, 256, (50, 3, 12, 15), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    draws = uniform(0, 0, np.arange(50), 2)
    result = RandomCrop(size, padding)(images, draws)
    height, width = (size, size) if size else (12, 15)
    for image, (row, column), cropped in zip(images, draws.tolist(), result, strict=True):
        top = int(row * (12 + 2 * padding - height + 1))
        left = int(column * (15 + 2 * padding - width + 1))
        padded = functional.pad(image, [padding] * 4)
        assert cropped.equal(functional.crop(padded, top, left, height, width))


def test_a_gpu_s_way_to_cut_windows_gives_the_same_crops():
    images = torch.randint(0, 256, (50, 3, 12, 15), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    draws = uniform(0, 0, np.arange(50), 2)
    rows, columns = (draws * torch.tensor([12 - 7 + 1, 15 - 9 + 1])).floor().long().unbind(1)
    expected = [functional.crop(image, *at, 7, 9) for image, *at in zip(images, rows, columns, strict=True)]
    assert _windows(images, rows, columns, 7, 9).equal(torch.stack(expected))


def test_offsets_are_uniform_and_independent_in_both_directions():
    # Each pixel holds its own position, so that the first one of a crop tells the offset.
    positions = torch.arange(1, 26, dtype=torch.float32).reshape(1, 1, 5, 5).expand(20_000, -1, -1, -1)
    corners = RandomCrop(3, 0)(positions, uniform(7, 0, np.arange(20_000), 2))[:, 0, 0, 0].numpy() - 1
    counts = np.histogram2d(corners // 5, corners % 5, bins=3)[0]
    assert corners.max() == 12
    assert stats.chisquare(counts.ravel()).pvalue > 1e-3


def test_the_last_offset_is_reached_and_never_passed():
    image = torch.arange(1.0, 10).reshape(1, 1, 3, 3)
    crop = RandomCrop(2, 0)
    assert crop(image, torch.tensor([[0.0, 0.0]], dtype=torch.float64))[0, 0, 0, 0] == 1
    assert crop(image, torch.tensor([[1 - 2**-32] * 2], dtype=torch.float64))[0, 0, 0, 0] == 5


@pytest.mark.parametrize(("options", "message"), [({"size": 0}, "size"), ({"padding": -1}, "padding")])
def test_wrong_options_are_refused(options, message):
    with pytest.raises(ValueError, match=f"{message} must be"):
        RandomCrop(**options)


def test_an_image_smaller_than_the_crop_is_refused():
    with pytest.raises(ValueError, match="40x40 for 16x20"):
        RandomCrop(40)(torch.zeros((1, 1, 8, 12)), torch.zeros((1, 2), dtype=torch.float64))
