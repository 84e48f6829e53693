import numpy as np
import pytest
import torch
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional

from distill.counter_random import uniform
from distill.data.transforms import RandomErasing


@pytest.mark.parametrize(("height", "width"), [(20, 30), (12, 40), (8, 8)])
@pytest.mark.parametrize("scale", [(0.02, 0.33), (0.8, 1.0)])
def test_boxes_are_torchvision_s_for_the_same_random_numbers(feed, height, width, scale):
    transform = RandomErasing(p=1.0, scale=scale)
    oracle = v2.RandomErasing(p=1.0, scale=scale)
    draws = uniform(0, 0, np.arange(150), transform.num_draws)
    boxes = transform.boxes(draws, height=height, width=width).tolist()
    num_whole = 0
    for row, box in zip(draws.tolist(), boxes, strict=True):
        feed(row[1:21], row[21:])
        params = oracle.make_params([torch.zeros((3, height, width))])
        if params["v"] is None:
            num_whole += 1
            assert box[2] == 0
        else:
            assert box == [params["i"], params["j"], params["h"], params["w"]]
    assert num_whole < 150


@pytest.mark.parametrize("value", [0.0, 0.5, (0.1, 0.4, 1.0)])
@pytest.mark.parametrize("levels", [1, 255])
def test_pixels_are_torchvision_s_erase(value, levels):
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (30, 3, 14, 18), dtype=torch.uint8, generator=generator)
    images = images if levels == 255 else images / 255
    transform = RandomErasing(p=0.6, value=value)
    draws = uniform(0, 0, np.arange(30), transform.num_draws)
    result = transform(images, draws)
    colour = (torch.tensor(value, dtype=torch.float64).reshape(-1, 1, 1) * levels).round(
        decimals=0 if levels == 255 else 6
    )
    changed = 0
    for image, row, box, erased in zip(
        images, draws, transform.boxes(draws, height=14, width=18).tolist(), result, strict=True
    ):
        expected = image
        if row[0] < 0.6:
            expected = functional.erase(image, *box, v=colour.to(image.dtype))
            changed += 1
        assert erased.equal(expected)
    assert 10 < changed < 26


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"p": 2.0}, "p must be a probability"),
        ({"scale": (0.5, 0.1)}, "scale"),
        ({"ratio": (0.0, 1.0)}, "ratio"),
        ({"value": 127}, "value must be a colour in 0..1, found 127"),
    ],
)
def test_wrong_options_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        RandomErasing(**options)


def test_a_colour_of_another_number_of_channels_is_refused():
    with pytest.raises(ValueError, match="1 or 1 channels, found 3"):
        RandomErasing(value=[0.1, 0.2, 0.3])(torch.zeros((1, 1, 8, 8)), torch.zeros((1, 23), dtype=torch.float64))
