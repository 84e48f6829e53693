"""What is drawn over images, by hand."""

from __future__ import annotations

import torch

from distill.tasks.drawing import LEAST_SIDE, class_color, draw_boxes, draw_masks, enlarged

CLASSES = ("background", "cat", "dog")


def test_small_images_become_large_and_stay_sharp():
    image = torch.arange(12, dtype=torch.uint8).reshape(1, 3, 4)
    large, times = enlarged(image)
    assert times == LEAST_SIDE // 3
    assert large.shape == (3, LEAST_SIDE, 4 * times)
    assert torch.equal(large[:, ::times, ::times], image.expand(3, -1, -1))
    assert torch.equal(large[:, times - 1 :: times, times - 1 :: times], image.expand(3, -1, -1))


def test_large_images_stay_as_they_are():
    image = torch.zeros(3, 300, 400, dtype=torch.uint8)
    assert enlarged(image)[0].shape == image.shape
    assert enlarged(image)[1] == 1


def test_each_class_lies_over_the_grey_image_in_its_colour():
    image = torch.full((3, 240, 240), 30, dtype=torch.uint8)
    image[0] = 90  # the mean of 90, 30 and 30 is 50
    mask = torch.zeros(1, 240, 240, dtype=torch.int64)
    mask[0, :100], mask[0, 200:] = 2, 255
    drawing = draw_masks([image], mask, CLASSES)
    [drawn] = drawing.images
    red, green, blue = class_color(2)
    expected = [round(0.4 * 50 + 0.6 * part) for part in (red, green, blue)]
    assert drawn[:, 0, 0].tolist() == expected
    assert drawn[:, 150, 0].tolist() == [50, 50, 50]
    assert drawn[:, 239, 0].tolist() == [round(0.4 * 50 + 0.6 * 160)] * 3
    assert drawing.colors == {"dog": class_color(2), "not known": (160, 160, 160)}


def test_a_mask_grows_with_its_image():
    image = torch.zeros(1, 4, 4, dtype=torch.uint8)
    mask = torch.zeros(1, 4, 4, dtype=torch.uint8)
    mask[0, 1, 2] = 1
    [drawn] = draw_masks([image], mask, CLASSES).images
    colored = drawn.sum(0) > 0
    assert colored.sum() == 60 * 60
    assert colored[60:120, 120:180].all()


def test_boxes_are_drawn_at_their_places_in_the_colour_of_their_class():
    image = torch.zeros(3, 80, 80, dtype=torch.uint8)
    drawing = draw_boxes([image], [torch.tensor([[10.0, 20.0, 50.0, 60.0]])], [torch.tensor([1])], CLASSES)
    [drawn] = drawing.images
    assert drawn.shape == (3, 240, 240)
    color = torch.tensor(class_color(1), dtype=torch.uint8)[:, None, None]
    is_color = (drawn == color).all(0)
    # Three pixels for one: the box covers rows 60 to 179 and columns 30 to 149, and its border is two pixels wide.
    assert is_color[60:180, 30:32].all()
    assert is_color[60:180, 148:150].all()
    assert is_color[60:62, 30:150].all()
    assert is_color[178:180, 30:150].all()
    assert drawn[:, 62:178, 32:148].sum() == 0
    assert drawn[:, 180:].sum() == 0
    assert drawn[:, :, 150:].sum() == 0
    assert is_color[45:60, 30:32].all()  # the name stands on the box
    assert drawing.colors == {"cat": class_color(1)}


def test_a_name_stays_inside_the_image():
    image = torch.zeros(3, 240, 240, dtype=torch.uint8)
    [drawn] = draw_boxes([image], [torch.tensor([[225.0, 2.0, 239.0, 60.0]])], [torch.tensor([2])], CLASSES).images
    assert drawn[:, 2:18, 205:225].sum() > 0


def test_scores_stand_beside_the_names():
    image, box = torch.zeros(3, 240, 240, dtype=torch.uint8), torch.tensor([[10.0, 30.0, 200.0, 200.0]])
    plain, scored = (
        draw_boxes([image], [box], [torch.tensor([1])], CLASSES, scores=scores).images[0]
        for scores in (None, [torch.tensor([0.875])])
    )
    assert (scored[:, :30] > 0).sum() > 1.5 * (plain[:, :30] > 0).sum()
    assert torch.equal(scored[:, 30:], plain[:, 30:])


def test_an_image_without_objects_stays_empty():
    image = torch.zeros(1, 240, 240, dtype=torch.uint8)
    drawing = draw_boxes([image], [torch.zeros(0, 4)], [torch.zeros(0, dtype=torch.int64)], CLASSES)
    assert drawing.images[0].sum() == 0
    assert drawing.colors == {}


def test_neighbouring_classes_differ_in_colour():
    colors = torch.tensor([class_color(label) for label in range(1, 60)]).float()
    for distance in (1, 2, 3):
        assert (colors[distance:] - colors[:-distance]).norm(dim=1).min() > 60
