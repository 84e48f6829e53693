import numpy as np
import pytest
import torch
from scipy import stats
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional

from distill.counter_random import uniform
from distill.data.transforms import RandomResizedCrop

CASES = [
    (RandomResizedCrop(8), 50, 70),
    (RandomResizedCrop(8, scale=(0.5, 1.0)), 40, 40),
    (RandomResizedCrop(8, scale=(0.9, 1.0), ratio=(0.9, 1.1)), 30, 60),  # most attempts miss, many fall back
    (RandomResizedCrop(8, scale=(0.9, 1.0), ratio=(0.9, 1.1)), 90, 30),
    (RandomResizedCrop(8, scale=(1.0, 1.0), ratio=(2.0, 3.0)), 35, 30),
    (RandomResizedCrop(8, scale=(0.99, 1.0), ratio=(0.1, 10.0)), 30, 31),
]


@pytest.mark.parametrize(("transform", "height", "width"), CASES)
def test_boxes_are_torchvision_s_for_the_same_random_numbers(feed, transform, height, width):
    oracle = v2.RandomResizedCrop(8, scale=transform.scale, ratio=transform.ratio)
    draws = uniform(0, 0, np.arange(200), transform.num_draws)
    boxes = transform.boxes(draws, height=height, width=width).tolist()
    image = torch.zeros((3, height, width))
    for row, box in zip(draws.tolist(), boxes, strict=True):
        feed(row[:20], row[20:])
        params = oracle.make_params([image])
        assert box == [params["top"], params["left"], params["height"], params["width"]]


def test_boxes_have_torchvision_s_distribution():
    transform = RandomResizedCrop(8)
    boxes = transform.boxes(uniform(5, 0, np.arange(3000), transform.num_draws), height=50, width=70).numpy()
    oracle = v2.RandomResizedCrop(8)
    image = torch.zeros((3, 50, 70))
    torch.manual_seed(0)
    params = [oracle.make_params([image]) for _ in range(3000)]
    for column, name in enumerate(("top", "left", "height", "width")):
        assert stats.ks_2samp(boxes[:, column], [each[name] for each in params]).pvalue > 1e-3


def test_pixels_are_torchvision_s_resized_crop():
    transform = RandomResizedCrop(9, scale=(0.2, 0.8))
    images = torch.randint(0, 256, (20, 3, 23, 31), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    draws = uniform(0, 0, np.arange(20), transform.num_draws)
    result = transform(images, draws)
    for image, box, cropped in zip(images, transform.boxes(draws, height=23, width=31).tolist(), result, strict=True):
        assert cropped.equal(functional.resized_crop(image, *box, size=[9, 9], antialias=True))


def test_fixes_the_size():
    assert RandomResizedCrop(9).fixes_size


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"size": 0}, "size must be"),
        ({"size": 8, "scale": (0.5, 0.2)}, "scale must be two increasing numbers"),
        ({"size": 8, "scale": (0.5, 1.2)}, "scale"),
        ({"size": 8, "ratio": (0.0, 1.0)}, "ratio must be two increasing numbers"),
        ({"size": 8, "ratio": (1.0,)}, "ratio"),
    ],
)
def test_wrong_options_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        RandomResizedCrop(**options)
