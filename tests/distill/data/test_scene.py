import numpy as np
import pytest

from distill.data.scene import Scene

CROSS = np.array([[0, 255, 0], [255, 255, 255], [0, 255, 0]], dtype=np.uint8)
SQUARE = np.full((2, 2), 255, dtype=np.uint8)


def empty(side=6):
    return Scene(np.full((side, side), 50, dtype=np.int64))


def test_the_pixels_that_change_are_those_of_the_mask():
    scene = empty()
    assert scene.add(CROSS, 1, 2, 200, 7)
    expected = np.zeros((6, 6), dtype=int)
    expected[[1, 2, 2, 2, 3], [3, 2, 3, 4, 3]] = 1
    assert scene.image.tolist() == (50 + 150 * expected).tolist()
    assert scene.mask().values.tolist() == (7 * expected).tolist()


def test_faint_ink_is_not_painted_and_middling_ink_is_blended():
    scene = empty()
    scene.add(np.array([[99, 100, 127, 128]], dtype=np.uint8), 0, 0, 250, 1)
    # The opacity is twice the ink: 50 + 200 * 200 / 255 and 50 + 200 * 254 / 255, cut to whole levels.
    assert scene.image[0, :4].tolist() == [50, 206, 249, 250]
    assert scene.mask().values[0, :4].tolist() == [0, 1, 1, 1]


def test_boxes_are_tight_round_what_is_visible():
    scene = empty(8)
    scene.add(np.full((4, 4), 255, dtype=np.uint8), 1, 1, 200, 3)
    assert scene.boxes().boxes.tolist() == [[1, 1, 5, 5]]
    assert scene.add(np.full((4, 1), 255, dtype=np.uint8), 1, 4, 100, 9)  # its last column, a quarter
    found = scene.boxes()
    assert found.boxes.tolist() == [[1, 1, 4, 5], [4, 1, 5, 5]]
    assert found.labels.tolist() == [3, 9]
    assert found.ignored.tolist() == [False, False]
    assert (found.height, found.width) == (8, 8)
    assert scene.mask().values[1].tolist() == [0, 3, 3, 3, 9, 0, 0, 0]
    assert scene.image[1, 3:5].tolist() == [200, 100]


def test_an_object_is_refused_where_it_would_hide_more_than_a_quarter_of_another():
    scene = empty()
    scene.add(SQUARE, 0, 0, 200, 1)
    before = scene.image.copy()
    assert not scene.add(SQUARE, 0, 1, 100, 2)  # half of it
    assert scene.image.tolist() == before.tolist()
    assert scene.labels == [1]
    assert scene.add(SQUARE, 1, 1, 100, 2)  # a quarter
    assert not scene.add(SQUARE[:1, :1], 0, 0, 100, 3)  # one pixel more
    assert scene.add(SQUARE[:1, :1], 2, 2, 100, 3)
    assert scene.labels == [1, 2, 3]


def test_what_is_smeared_belongs_to_the_background():
    scene = empty()
    scene.smear(SQUARE, 4, 4, 90)
    assert scene.image[4:, 4:].tolist() == [[90, 90], [90, 90]]
    assert scene.mask().values.max() == 0
    assert scene.boxes().boxes.shape == (0, 4)
    scene.add(SQUARE, 3, 3, 210, 5)
    assert scene.mask().values[3:, 3:].tolist() == [[5, 5, 0], [5, 5, 0], [0, 0, 0]]


def test_the_background_given_is_left_as_it_is():
    background = np.full((6, 6), 50, dtype=np.int64)
    Scene(background).smear(SQUARE, 0, 0, 90)
    assert background.tolist() == [[50] * 6] * 6
    with pytest.raises(ValueError, match="broadcast"):
        Scene(background).smear(SQUARE, 5, 5, 90)
