"""Masks: every operation against the image whose pixels are the mask's classes."""

import torch
from torchvision import tv_tensors

from distill.data.annotation import Mask

VALUES = torch.tensor([[0, 1, 2], [3, 4, 5]], dtype=torch.uint8)


def test_mirrored():
    assert Mask(VALUES).mirrored().values.tolist() == [[2, 1, 0], [5, 4, 3]]


def test_a_window_inside():
    assert Mask(VALUES).window(0, 1, 2, 2).values.tolist() == [[1, 2], [4, 5]]


def test_nothing_is_known_beyond_the_image():
    assert Mask(VALUES).window(-1, -2, 3, 4).values.tolist() == [[255] * 4, [255, 255, 0, 1], [255, 255, 3, 4]]
    assert Mask(VALUES).window(1, 2, 2, 2).values.tolist() == [[5, 255], [255, 255]]
    assert Mask(VALUES).window(5, 5, 1, 2).values.tolist() == [[255, 255]]


def test_resizing_takes_the_nearest_centre():
    # Centres of three new columns in the old two: 1/3 -> 0, 1 -> the right one of two at equal distance, 5/3 -> 1.
    row = torch.tensor([[7, 9]], dtype=torch.uint8)
    assert Mask(row).resized(1, 4).values.tolist() == [[7, 7, 9, 9]]
    assert Mask(row).resized(1, 3).values.tolist() == [[7, 9, 9]]
    assert Mask(VALUES).resized(4, 6).values.tolist() == [
        [0, 0, 1, 1, 2, 2],
        [0, 0, 1, 1, 2, 2],
        [3, 3, 4, 4, 5, 5],
        [3, 3, 4, 4, 5, 5],
    ]
    # torchvision's nearest takes the corner, not the centre: of four columns 0 and 2, where the centres are 1 and 3.
    assert Mask(torch.tensor([[1, 2, 3, 4]], dtype=torch.uint8)).resized(1, 2).values.tolist() == [[2, 4]]
    assert Mask(VALUES).resized(2, 3).values is VALUES


def test_through_torchvision_and_back():
    given = Mask(VALUES).to_tv()
    assert isinstance(given["mask"], tv_tensors.Mask)
    back = Mask(VALUES).from_tv(given, 2, 3)
    assert type(back.values) is torch.Tensor
    assert torch.equal(back.values, VALUES)


def test_collated_and_blank():
    labels = Mask.collate([Mask(VALUES), Mask.blank(2, 3)])
    assert labels.dtype == torch.int64
    assert labels.tolist() == [VALUES.tolist(), [[255] * 3] * 2]
