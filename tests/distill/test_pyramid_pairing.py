"""Levels of pyramids pair by stride; they can be named, and have plain names as layers."""

import pytest

from distill.paths import CWD, MGD, PKD, RKDDistance
from distill.paths.base import FeaturePath
from distill.taps import OUTPUT, Probe, Tap, TapPair, pair_last, pair_named, pair_stages


def pyramid(*sizes, rows=64, modules=()):
    """Return the probe of a detector with levels of these heights and widths, for images of so many rows."""
    levels = tuple(
        Tap(f":level{number}", 8, height, width, rows / height, "output")
        for number, (height, width) in enumerate(sizes)
    )
    others = (*modules, Tap(":boxes", 4, 99, 1, 1.0, "output"), Tap(OUTPUT, 3, 99, 1, 1.0, "output"))
    taps = {tap.name: tap for tap in (*levels, *others)}
    return Probe(taps=taps, stages=levels, last=levels[-1], output_shape=(3, 99), classifier=None)


def names(pairs):
    return [(pair.student.removeprefix(":level"), pair.teacher.removeprefix(":level")) for pair in pairs]


# The strides of RetinaNet are 8 to 128, those of Faster R-CNN 4 to 64.
RETINANET = pyramid((32, 48), (16, 24), (8, 12), (4, 6), (2, 3), rows=256)
FASTER_RCNN = pyramid((64, 96), (32, 48), (16, 24), (8, 12), (4, 6), rows=256)


def test_levels_of_one_stride_meet_whatever_their_numbers():
    assert names(pair_stages(RETINANET, FASTER_RCNN)) == [("0", "1"), ("1", "2"), ("2", "3"), ("3", "4")]
    assert names(pair_stages(FASTER_RCNN, RETINANET)) == [("1", "0"), ("2", "1"), ("3", "2"), ("4", "3")]
    assert names(pair_last(RETINANET, FASTER_RCNN)) == [("4", "4")]


def test_layers_have_plain_names():
    pairs = pair_stages(RETINANET, FASTER_RCNN)
    assert [pair.layer for pair in pairs] == ["level0", "level1", "level2", "level3"]


def test_rounding_of_odd_sizes_is_no_other_stride():
    # 300 rows: 38 and 37 are of stride 8 both, as paddings have it.
    one, other = pyramid((38, 50), (19, 25), (10, 13), rows=300), pyramid((37, 49), (18, 24), (9, 12), rows=300)
    assert names(pair_stages(one, other)) == [("0", "0"), ("1", "1"), ("2", "2")]


def test_levels_that_a_small_image_leaves_alike_pair_in_order():
    # 64 rows: the levels of stride 32, 64 and 128 have two rows, one and one.
    five, four = pyramid((8, 12), (4, 6), (2, 3), (1, 2), (1, 1)), pyramid((16, 24), (8, 12), (4, 6), (2, 3), (1, 2))
    same = [(str(number), str(number)) for number in range(5)]
    assert names(pair_stages(five, five)) == same
    assert names(pair_stages(five, four)) == [("0", "1"), ("1", "2"), ("2", "3"), ("3", "4")]


@pytest.mark.parametrize(
    ("path", "levels"), [(PKD(), 4), (CWD(), 4), (MGD(), 4), (RKDDistance(), 1)], ids=["PKD", "CWD", "MGD", "RKD"]
)
def test_paths_of_one_stage_read_all_levels_unless_they_see_the_image_as_a_whole(path: FeaturePath, levels):
    assert len(path.choose_pairs(RETINANET, FASTER_RCNN)) == levels


def test_a_level_can_be_named():
    pair = {"student": ":level1", "teacher": ":level2"}
    assert pair_named(RETINANET, FASTER_RCNN, [pair]) == (TapPair(":level1", ":level2", "level1"),)
    twice = [pair, {**pair, "teacher": ":level0"}]
    layers = [one.layer for one in pair_named(RETINANET, FASTER_RCNN, twice)]
    assert layers == ["level1-level2", "level1-level0"]


@pytest.mark.parametrize("name", [":boxes", ":box"])
def test_other_parts_of_an_output_are_no_feature_maps(name):
    rule = rf"the teacher's tap '{name}' is a part of its output and no feature map; its feature maps are :level0, "
    with pytest.raises(ValueError, match=rule):
        pair_named(RETINANET, FASTER_RCNN, [{"student": ":level1", "teacher": name}])


def test_an_unknown_level_is_answered_with_the_nearest():
    with pytest.raises(ValueError, match=r"the model has no module ':level7'; nearest names: :level"):
        pair_named(RETINANET, FASTER_RCNN, [{"student": ":level7", "teacher": ":level1"}])
