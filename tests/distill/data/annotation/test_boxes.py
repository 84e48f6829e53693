"""Boxes: cut off at the border, left out where too little is left, moved as the image is."""

import torch
from torchvision import tv_tensors

from distill.data.annotation import Boxes


def boxes(*rows, height=10, width=20, ignored=()):
    labels = torch.arange(1, len(rows) + 1)
    flags = torch.tensor([number in ignored for number in range(len(rows))], dtype=torch.bool)
    return Boxes(torch.tensor(rows, dtype=torch.float32).reshape(-1, 4), labels, flags, height, width)


def test_mirrored():
    assert boxes([1, 2, 5, 6]).mirrored().boxes.tolist() == [[15, 2, 19, 6]]


def test_a_window_cuts_and_leaves_out():
    found = boxes([1, 2, 5, 6], [8, 0, 12, 10], [15, 1, 19, 3], [0, 0, 4.5, 10], ignored=[1]).window(2, 4, 5, 8)
    # Of the first, one column is left; of the last, half a column: below a pixel.
    assert found.boxes.tolist() == [[0, 0, 1, 4], [4, 0, 8, 5]]
    assert found.labels.tolist() == [1, 2]
    assert found.ignored.tolist() == [False, True]
    assert (found.height, found.width) == (5, 8)


def test_a_window_beyond_the_image_shifts():
    assert boxes([1, 2, 5, 6]).window(-3, -4, 20, 30).boxes.tolist() == [[5, 5, 9, 9]]


def test_resized():
    found = boxes([2, 2, 6, 8], [0, 0, 1, 10]).resized(5, 40)
    assert found.boxes.tolist() == [[4, 1, 12, 4], [0, 0, 2, 5]]
    assert (found.height, found.width) == (5, 40)
    assert len(boxes([0, 0, 1, 10]).resized(10, 10).boxes) == 0  # half a pixel wide


def test_an_image_without_objects():
    found = boxes().window(0, 0, 4, 4).resized(2, 2).mirrored()
    assert found.boxes.shape == (0, 4)
    labels = Boxes.collate([found, boxes([1, 2, 5, 6]), Boxes.blank(3, 3)])
    assert [len(each) for each in labels.boxes] == [0, 1, 0]
    assert labels.trained()[0]["boxes"].shape == (0, 4)


def test_through_torchvision_and_back():
    own = boxes([1, 2, 5, 6], [8, 0, 12, 10], ignored=[1])
    given = own.to_tv()
    assert isinstance(given["boxes"], tv_tensors.BoundingBoxes)
    assert given["boxes"].canvas_size == (10, 20)
    back = own.from_tv(given, 10, 20)
    assert type(back.boxes) is torch.Tensor
    assert back.boxes.tolist() == own.boxes.tolist()
    assert back.labels.tolist() == [1, 2]
    assert back.ignored.tolist() == [False, True]


def test_what_is_ignored_is_not_trained_on():
    labels = Boxes.collate([boxes([1, 2, 5, 6], [8, 0, 12, 10], ignored=[0])])
    assert len(labels) == 1
    (trained,) = labels.trained()
    assert trained["boxes"].tolist() == [[8, 0, 12, 10]]
    assert trained["labels"].tolist() == [2]
