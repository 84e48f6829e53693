import numpy as np
import pytest
from sklearn.datasets import load_digits

from distill.data.composer import Composer, smallest_canvas
from distill.data.ink import add_border

DIGITS = add_border(load_digits().images[:40])
LABELS = np.arange(40, dtype=np.int64) % 10 + 1


def composer(**options):
    defaults = {"size": 64, "min_digits": 2, "max_digits": 6, "min_side": 12, "max_side": 28, "max_clutter": 2}
    return Composer(**{**defaults, **options})


def compose(count=20, *, first=0, seed=0, **options):
    return list(composer(**options).compose(DIGITS, LABELS, np.arange(first, first + count), seed))


def test_a_scene_depends_on_its_number_and_the_seed_alone():
    whole = compose(300)
    some = compose(3, first=255)  # on both sides of where a chunk of 256 ends
    for (image, scene), (same, same_scene) in zip(some, whole[255:258], strict=True):
        assert image.equal(same)
        assert scene.owners.tolist() == same_scene.owners.tolist()
    assert not compose(1, seed=1)[0][0].equal(whole[0][0])
    assert len({image.numpy().tobytes() for image, _ in whole}) == 300


def test_numbers_of_digits_and_their_sides_span_the_range():
    scenes = [scene for _, scene in compose(300)]
    counts = np.bincount([len(scene.labels) for scene in scenes])
    assert counts[:2].sum() == 0
    assert len(counts) == 7
    assert (counts[2:] > 30).all()  # about 60 each
    boxes = np.concatenate([scene.boxes().boxes.numpy() for scene in scenes])
    heights = boxes[:, 3] - boxes[:, 1]
    assert heights.max() in (27, 28)
    assert heights.min() <= 12
    assert boxes.min() >= 0
    assert boxes.max() <= 64


def test_no_digit_hides_more_than_a_quarter_of_another():
    side = 16
    for _, scene in compose(60, min_side=side, max_side=side, min_digits=6, max_clutter=0):
        visible = np.bincount(scene.owners.reshape(-1), minlength=len(scene.labels) + 1)[1:]
        assert all(4 * now >= 3 * before for now, before in zip(visible, scene._painted, strict=True))


def test_clutter_is_visible_and_unlabelled():
    plain, cluttered = (compose(40, max_clutter=count) for count in (0, 1))
    bright = [
        np.mean([(image.numpy()[scene.owners == 0] > 150).mean() for image, scene in scenes])
        for scenes in (plain, cluttered)
    ]
    assert bright[0] < 0.001  # the background ends at 120, the noise at 24
    assert bright[1] > 0.01


def test_digits_stand_out_of_the_background():
    for image, scene in compose(20, max_clutter=0):
        pixels = image.numpy()
        assert pixels[scene.owners == 0].max() <= 144
        assert pixels[scene.owners > 0].mean() > pixels[scene.owners == 0].mean() + 20


@pytest.mark.parametrize(("digits", "side", "expected"), [(1, 28, 28), (6, 28, 28), (16, 12, 32), (17, 12, 40)])
def test_smallest_canvas(digits, side, expected):
    assert smallest_canvas(digits, side) == expected
