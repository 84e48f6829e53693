import numpy as np
import pytest
import torch
from scipy import stats
from torchvision.transforms import v2

from distill.counter_random import uniform
from distill.data.annotation import Boxes, Mask, Sample
from distill.data.transforms import RandomScaleCrop


def images(count=30, height=21, width=34):
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (count, 3, height, width), dtype=torch.uint8, generator=generator)


def draws(*rows):
    return torch.tensor(rows, dtype=torch.float64)


@pytest.mark.parametrize(
    ("options", "row", "expected"),
    [
        # scale 0.5 + 1.5 * 0.5 = 1.25: 25 x 50, and the window is somewhere in 16 x 31 places
        ({"size": [10, 20]}, [0.5, 0.0, 0.0], (25, 50, 0, 0)),
        ({"size": [10, 20]}, [0.5, 0.5, 0.999], (25, 50, 8, 30)),
        # relative to 10 x 20 the image of 20 x 40 has half its size
        ({"size": [10, 20], "relative_to": "size"}, [0.0, 0.9, 0.9], (5, 10, 0, 0)),
        ({"size": [10, 20], "relative_to": "size", "scale": (2.0, 2.0)}, [0.3, 0.999, 0.0], (20, 40, 10, 0)),
        ({"size": [40, 20], "relative_to": "size", "scale": (1.0, 1.0)}, [0.3, 0.5, 0.5], (10, 20, 0, 0)),
        ({"size": 30, "scale": (1.0, 1.0)}, [0.3, 0.5, 0.5], (20, 40, 0, 5)),
    ],
)
def test_size_and_place(options, row, expected):
    assert RandomScaleCrop(**options).place(draws(row)[0], 20, 40) == expected


def test_scales_and_places_are_uniform():
    crop = RandomScaleCrop(1, (1.0, 2.0))
    found = np.array([crop.place(row, 1000, 1000) for row in uniform(3, 0, np.arange(5000), 3)])
    scales = found[:, 0] / 1000 - 1
    shares = found[:, 2:] / found[:, :1]
    for values in (scales, shares[:, 0], shares[:, 1]):
        assert stats.kstest(values, "uniform").pvalue > 1e-3
    assert abs(np.corrcoef(np.stack([scales, *shares.T]))[np.triu_indices(3, 1)]).max() < 0.06  # 4 standard errors


@pytest.mark.parametrize("scale", [0.3, 0.5, 0.71, 1.0, 1.6])
def test_pixels_are_those_of_torchvision_s_jitter_and_crop(scale):
    """torchvision resizes by the same factor of what fits, and pads on the right and below."""
    view = RandomScaleCrop([16, 24], (scale, scale), "size")(images(3), draws([0, 0, 0]).expand(3, 3))
    jitter = v2.ScaleJitter((16, 24), (scale, scale))
    for image, mine in zip(images(3), view, strict=True):
        jittered = jitter(image)
        padded = v2.functional.pad(jittered, [0, 0, max(0, 24 - jittered.shape[2]), max(0, 16 - jittered.shape[1])])
        expected = v2.functional.crop(padded, 0, 0, 16, 24)
        height, width = (max(1, round(side * scale * min(16 / 21, 24 / 34))) for side in (21, 34))
        if jittered.shape[1:] == (height, width):
            assert mine.equal(expected)
        else:  # it rounds down where this rounds
            reference = v2.functional.resize(image, [height, width], antialias=True)
            rows, columns = min(16, height), min(24, width)
            assert mine[:, :rows, :columns].equal(reference[:, :rows, :columns])
            assert mine[:, rows:].sum() == mine[:, :, columns:].sum() == 0


def test_alone_and_together_are_the_same_view():
    crop = RandomScaleCrop([16, 24])
    rows = uniform(1, 0, np.arange(30), 3)
    for image, row, view in zip(images(), rows, crop(images(), rows), strict=True):
        together = crop.together(Sample(image, Mask(image[0])), row)
        assert together.image.equal(view)
        assert together.annotation.values.shape == (16, 24)


def test_beyond_the_image_it_is_black_and_unknown():
    crop = RandomScaleCrop(30, (1.0, 1.0))
    image = torch.full((3, 20, 40), 200, dtype=torch.uint8)
    row = draws([0.0, 0.7, 0.5])[0]
    view, mask = crop.together(Sample(image, Mask(torch.full((20, 40), 1, dtype=torch.uint8))), row)
    assert (view[:, :20] == 200).all()
    assert (view[:, 20:] == 0).all()
    assert (mask.values[:20] == 1).all()
    assert (mask.values[20:] == 255).all()
    boxes = Boxes(
        torch.tensor([[2.0, 3, 12, 9], [30, 10, 39, 20], [0, 0, 5, 5]]),
        torch.tensor([1, 2, 3]),
        torch.tensor([False, True, False]),
        20,
        40,
    )
    found = crop.together(Sample(image, boxes), row).annotation
    assert found.boxes.tolist() == [[0, 3, 7, 9], [25, 10, 30, 20]]  # 5 of 11 places to the right
    assert found.labels.tolist() == [1, 2]
    assert found.ignored.tolist() == [False, True]
    assert (found.height, found.width) == (30, 30)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"size": 0}, "size must be height and width in pixels, or one number for both, at least 1, found 0"),
        ({"size": [4, 5, 6]}, r"size must be height and width .*found \[4, 5, 6\]"),
        ({"size": 4, "scale": (2.0, 1.0)}, "scale must be two increasing numbers"),
        ({"size": 4, "scale": (0.0, 1.0)}, "scale must be two increasing numbers between 0.001 and 1000"),
        ({"size": 4, "relative_to": "canvas"}, "relative_to must be 'image' or 'size', found 'canvas'"),
    ],
)
def test_wrong_options_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        RandomScaleCrop(**options)
