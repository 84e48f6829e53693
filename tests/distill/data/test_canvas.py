import pytest
import torch
from torchvision.transforms import v2

from distill.data.annotation import Boxes, Mask, Sample
from distill.data.canvas import Canvas, sides_of
from distill.data.transforms import RandomScaleCrop

IMAGE = torch.randint(1, 256, (3, 20, 40), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
MASK = Mask((torch.arange(20)[:, None] // 10 + torch.arange(40) // 20).to(torch.uint8))


def boxes():
    found = torch.tensor([[4.0, 2, 20, 10], [36, 10, 40, 20]])
    return Boxes(found, torch.tensor([1, 2]), torch.tensor([False, True]), 20, 40)


def resized(height, width):
    return v2.functional.resize(IMAGE, [height, width], antialias=True)


def test_stretch_gives_up_the_aspect():
    image, mask = Canvas(30, 30, "stretch").fitted(Sample(IMAGE, MASK))
    assert image.equal(resized(30, 30))
    assert mask.values.tolist() == [[row // 15 + column // 15 for column in range(30)] for row in range(30)]
    found = Canvas(30, 30, "stretch").fitted(Sample(IMAGE, boxes())).annotation
    assert found.boxes.tolist() == [[3, 3, 15, 15], [27, 15, 30, 30]]


def test_pad_keeps_the_aspect_and_pads_on_the_right_and_below():
    image, mask = Canvas(30, 30, "pad").fitted(Sample(IMAGE, MASK))
    assert image[:, :15].equal(resized(15, 30))
    assert (image[:, 15:] == 0).all()
    assert (mask.values[15:] == 255).all()
    assert mask.values[14, 29] == 2
    found = Canvas(30, 30, "pad").fitted(Sample(IMAGE, boxes())).annotation
    assert found.boxes.tolist() == [[3, 1.5, 15, 7.5], [27, 7.5, 30, 15]]
    assert (found.height, found.width) == (30, 30)
    image, mask = Canvas(20, 50, "pad").fitted(Sample(IMAGE, MASK))
    assert image[:, :, :40].equal(IMAGE)
    assert (mask.values[:, 40:] == 255).all()


@pytest.mark.parametrize("size", [(30, 30), (7, 33), (33, 7)])
def test_pad_is_what_a_random_scale_of_one_shows(size):
    sample = Canvas(*size, "pad").fitted(Sample(IMAGE, MASK))
    crop = RandomScaleCrop(size, (1.0, 1.0), "size")
    shown = crop.together(Sample(IMAGE, MASK), torch.tensor([0.3, 0.6, 0.9], dtype=torch.float64))
    assert shown.image.equal(sample.image)
    assert shown.annotation.values.equal(sample.annotation.values)


def test_crop_covers_the_canvas_and_cuts_out_the_middle():
    image, mask = Canvas(30, 30, "crop").fitted(Sample(IMAGE, MASK))
    assert image.equal(v2.functional.center_crop(resized(30, 60), [30, 30]))
    assert mask.values.tolist() == [[row // 15 + column // 15 for column in range(30)] for row in range(30)]


@pytest.mark.parametrize("fit", ["stretch", "pad", "crop"])
@pytest.mark.parametrize("size", [(7, 33), (33, 7), (20, 40), (2, 3), (90, 91)])
def test_all_leaves_in_the_canvas_size_and_there_it_stays(fit, size):
    canvas = Canvas(*size, fit)
    for annotation in (MASK, boxes()):
        fitted = canvas.fitted(Sample(IMAGE, annotation))
        assert fitted.image.shape == (3, *size)
        again = canvas.fitted(fitted)
        assert again.image is fitted.image
        assert again.annotation is fitted.annotation
    assert canvas.fitted(Sample(IMAGE, MASK)).annotation.values.shape == size


def test_size_is_two_sides_or_one_for_both():
    assert sides_of(7) == (7, 7)
    assert sides_of([3, 4]) == (3, 4)
    with pytest.raises(ValueError, match=r"at least 1, found \[3, 0\]"):
        sides_of([3, 0])
