"""Where the locations of an FCOS lie, and which are trained on objects; by the rule of Tian et al. 2019."""

import torch
from detector_samples import HEIGHT, PLACES, WIDTH, make

from distill.objects import Objects
from distill.tasks.detectors import family_of
from distill.tasks.detectors.fcos_locations import FCOSLocations

STRIDES = (4, 8, 16)
BOXES = [[8.0, 8.0, 25.0, 21.0], [4.0, 2.0, 90.0, 60.0], [40.0, 10.0, 43.0, 13.0]]


def located():
    model = make("FCOS").eval()
    return FCOSLocations(family_of(model).run(model, torch.zeros(2, 3, HEIGHT, WIDTH)))


def objects(*ignored):
    boxes = torch.tensor(BOXES)
    nothing = torch.zeros(0)
    image = boxes, torch.tensor([1, 2, 3]), torch.tensor(ignored)
    return Objects.of([image, (nothing.reshape(0, 4), nothing.long(), nothing.bool())])


def places():
    """Return level, horizontal and vertical centre of every location."""
    for level, (rows, columns) in enumerate(PLACES):
        for row in range(rows):
            for column in range(columns):
                yield level, column * STRIDES[level], row * STRIDES[level]


def trained(level, x, y, box):
    """Whether a location lies in the box, near its centre, and is of the level for boxes of this size."""
    left, top, right, bottom = box
    sides = (x - left, y - top, right - x, bottom - y)
    away = max(abs(x - (left + right) / 2), abs(y - (top + bottom) / 2))
    least = 0 if level == 0 else 4 * STRIDES[level]
    most = 8 * STRIDES[level] if level < len(STRIDES) - 1 else float("inf")
    return min(sides) > 0 and away < 1.5 * STRIDES[level] and least < max(sides) < most


def test_anchors_are_boxes_of_a_stride_around_the_places():
    found = located().anchors(torch.device("cpu"))
    wanted = [
        [x - STRIDES[level] / 2, y - STRIDES[level] / 2, x + STRIDES[level] / 2, y + STRIDES[level] / 2]
        for level, x, y in places()
    ]
    torch.testing.assert_close(found, torch.tensor(wanted))


def test_positive_locations():
    found = located().positive(objects(False, False, False))
    wanted = [any(trained(*place, box) for box in BOXES) for place in places()]
    assert found.shape == (2, len(wanted))
    assert found[0].tolist() == wanted
    assert 0 < sum(wanted) < len(wanted)
    assert not found[1].any()


def test_ignored_objects_have_none():
    found = located().positive(objects(False, True, True))
    assert found[0].tolist() == [trained(*place, BOXES[0]) for place in places()]


def test_a_probe_on_the_meta_device_tells_the_same():
    with torch.device("meta"):
        model = make("FCOS").to("meta")
        output = family_of(model).run(model, torch.empty(2, 3, HEIGHT, WIDTH))
    on_meta = FCOSLocations(output)
    torch.testing.assert_close(on_meta._sizes, [tuple(size) for size in PLACES])
