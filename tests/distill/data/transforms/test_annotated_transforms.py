"""Masks and boxes land where the image's content lands, in every transform that moves it."""

import numpy as np
import pytest
import torch
from torchvision.transforms import v2

from distill.counter_random import uniform
from distill.data import transforms
from distill.data.annotation import Boxes, Mask, Sample

COLOURS = torch.tensor([[40, 90, 140], [220, 30, 60], [10, 200, 90], [250, 250, 20]], dtype=torch.uint8)
RECTANGLES = [(4, 6, 25, 30), (30, 3, 58, 17), (41, 25, 52, 44)]

EXACT = {
    "RandomHorizontalFlip": lambda: transforms.RandomHorizontalFlip(),
    "RandomCrop": lambda: transforms.RandomCrop(padding=9),
    "a smaller RandomCrop": lambda: transforms.RandomCrop(size=31, padding=3),
    "v2.RandomCrop": lambda: transforms.EachImage(v2.RandomCrop((30, 41))),
    "v2.RandomIoUCrop": lambda: transforms.EachImage(
        v2.Compose([v2.RandomIoUCrop(), v2.SanitizeBoundingBoxes()]),
    ),
    "v2.RandomZoomOut": lambda: transforms.EachImage(v2.RandomZoomOut()),
}
RESIZED = {
    "RandomResizedCrop": lambda: transforms.RandomResizedCrop(40),
    "RandomScaleCrop": lambda: transforms.RandomScaleCrop([45, 38], (0.6, 2.5)),
    "RandomScaleCrop to size": lambda: transforms.RandomScaleCrop([45, 38], (0.6, 2.5), "size"),
    "v2.RandomResizedCrop": lambda: transforms.EachImage(v2.RandomResizedCrop((40, 44), antialias=True)),
}
BEYOND = ("RandomCrop", "a smaller RandomCrop", "RandomScaleCrop", "RandomScaleCrop to size", "v2.RandomZoomOut")
"""What reaches beyond the image."""
STILL = {
    "ColorJitter": lambda: transforms.ColorJitter(0.2, 0.2, 0.2),
    "RandomErasing": lambda: transforms.RandomErasing(p=1.0),
}


def painted():
    """Returns a mask of three rectangles on ground, and an image in its classes' colours."""
    mask = torch.zeros(48, 64, dtype=torch.uint8)
    for number, (left, top, right, bottom) in enumerate(RECTANGLES, start=1):
        mask[top:bottom, left:right] = number
    return COLOURS[mask.long()].permute(2, 0, 1), mask


def boxed():
    """Returns an image with one white rectangle in each channel, and their boxes."""
    image = torch.zeros(3, 48, 64, dtype=torch.uint8)
    for channel, (left, top, right, bottom) in enumerate(RECTANGLES):
        image[channel, top:bottom, left:right] = 255
    boxes = torch.tensor(RECTANGLES, dtype=torch.float32)
    return image, Boxes(boxes, torch.tensor([1, 2, 3]), torch.tensor([False, True, False]), 48, 64)


def views(transform, sample):
    before = (sample.image.clone(), repr(vars(sample.annotation)))
    made = [transform.together(sample, row) for row in uniform(5, 0, np.arange(60), transform.num_draws)]
    assert sample.image.equal(before[0])
    assert repr(vars(sample.annotation)) == before[1]
    assert len({view.image.numpy().tobytes() for view in made}) > 1
    return made


def make(name):
    return {**EXACT, **RESIZED}[name]()


def needs_boxes(name):
    return name == "v2.RandomIoUCrop"


def test_every_transform_is_tried():
    classes = {type(make()).__name__ for make in (*EXACT.values(), *RESIZED.values(), *STILL.values())}
    assert classes == set(transforms.__all__)


@pytest.mark.parametrize("name", [name for name in (*EXACT, *RESIZED) if not needs_boxes(name)])
def test_masks_follow_what_is_painted(name):
    image, mask = painted()
    num_pure = num_all = num_unknown = 0
    for view in views(make(name), Sample(image, Mask(mask))):
        values = view.annotation.values
        assert values.shape == view.image.shape[1:]
        assert values.dtype == torch.uint8
        for number, colour in enumerate(COLOURS):
            pure = (view.image == colour[:, None, None]).all(dim=0)
            assert (values[pure] == number).all()
            num_pure += int(pure.sum())
        black = (view.image == 0).all(dim=0)
        assert (values[black] == 255).all()
        assert (view.image[:, values == 255] == 0).all()
        num_pure += int(black.sum())
        num_unknown += int(black.sum())
        num_all += values.numel()
    assert num_pure > (0.99 if name in EXACT else 0.2) * num_all
    assert (num_unknown > 0) == (name in BEYOND)


@pytest.mark.parametrize("name", [*EXACT, *RESIZED])
def test_boxes_follow_their_rectangles(name):
    image, boxes = boxed()
    tolerance = 0.0 if name in EXACT else 1.0
    num_boxes = 0
    for view in views(make(name), Sample(image, boxes)):
        found = view.annotation
        assert (found.height, found.width) == tuple(view.image.shape[1:])
        seen = {}
        for label, channel in enumerate(view.image, start=1):
            rows, columns = (channel >= 128).any(dim=1).nonzero()[:, 0], (channel >= 128).any(dim=0).nonzero()[:, 0]
            if len(rows):
                seen[label] = torch.stack([columns[0], rows[0], columns[-1] + 1, rows[-1] + 1])
        for box, label, ignored in zip(found.boxes, found.labels.tolist(), found.ignored.tolist(), strict=True):
            assert ignored == (label == 2)
            if label in seen:
                assert (box - seen[label]).abs().max() <= tolerance
            else:  # less than half a pixel is seen of it
                assert (box[2:] - box[:2]).min() < 2
            num_boxes += 1
        if not needs_boxes(name):  # that one leaves out what has its centre outside
            lost = set(seen) - set(found.labels.tolist())
            assert all((seen[label][2:] - seen[label][:2]).min() <= 1 for label in lost)
    assert num_boxes > 60


@pytest.mark.parametrize("name", sorted(STILL))
def test_what_does_not_move_the_image_leaves_annotations_as_they_are(name):
    transform = STILL[name]()
    for sample in (Sample(painted()[0], Mask(painted()[1])), Sample(*boxed())):
        assert all(view.annotation is sample.annotation for view in views(transform, sample))


@pytest.mark.parametrize("name", [*EXACT, *RESIZED])
def test_the_global_generator_is_left_as_it_was(name):
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    transform = make(name)
    transform.together(Sample(*boxed()), torch.full((transform.num_draws,), 0.4, dtype=torch.float64))
    assert torch.rand(3).equal(expected)
