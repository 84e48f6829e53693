import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits
from torchvision.transforms.v2 import functional

from distill.data import Digits
from distill.data.split import Split
from distill.data.transforms import RandomCrop


def test_images_are_the_package_s_scaled_to_bytes():
    source = Digits().load().source
    digits = load_digits()
    assert source.images.shape == (1797, 1, 8, 8)
    assert source.images.dtype == torch.uint8
    assert source.labels.tolist() == digits.target.tolist()
    # Level 16 is white; 15.9375 is 255 / 16.
    expected = torch.from_numpy(digits.images * 15.9375)
    assert (source.images[:, 0] - expected).abs().max() <= 0.5
    assert source.images.max() == 255


def test_default_mean_and_std_are_those_of_the_images():
    data = Digits().load()
    pixels = data.source.images.double() / 255
    assert data.mean == pytest.approx([pixels.mean().item()], abs=1e-5)
    assert data.std == pytest.approx([pixels.std(correction=0).item()], abs=1e-5)


def test_size_and_channels():
    dataset = Digits(size=16, channels=3)
    assert dataset.image_shape == (3, 16, 16)
    assert len(dataset.mean) == len(dataset.std) == 3
    images = dataset.load().source.images
    assert images.shape == (1797, 3, 16, 16)
    assert images[:, 0].equal(images[:, 2])
    original = Digits().load().source.images[5]
    assert images[5, :1].equal(functional.resize(original, [16, 16], antialias=True))


def test_default_augmentation_never_mirrors():
    (crop,) = Digits(size=32).transforms
    assert isinstance(crop, RandomCrop)
    assert crop.padding == 4
    assert Digits(augment=[]).transforms == ()


def test_split_of_the_1797_images():
    data = Digits(split=Split(validation=180, test=0.25)).load()
    assert (len(data.test), len(data.validation), len(data.train)) == (449, 180, 1168)
    assert np.bincount(data.test.labels).min() >= 43  # ten classes of 174 to 183 images


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"size": 4}, "size must be at least 8"),
        ({"channels": 2}, "channels must be 1, or 3"),
        ({"split": Split(validation=1500)}, "split.validation .*1,500 of 1,438"),
        ({"mean": [0.1, 0.2]}, "mean must have 1"),
        ({"std": [0.0]}, "std must be above 0"),
        ({"augment": [RandomCrop(size=20, padding=1)]}, r"augment\[0\] \(RandomCrop\).*\[1, 8, 8\].*20x20 for 10x10"),
    ],
)
def test_wrong_options_are_refused_before_loading(options, message):
    with pytest.raises(ValueError, match=message):
        Digits(**options)
