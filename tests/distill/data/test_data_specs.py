"""Every data set of images with annotations, as a file names it."""

import json

import pytest

from distill.build import blueprint, build, check
from distill.slots import DATASET

SPECS = {
    "ADE20K": ("ade20k_root", {"training": 2, "validation": 2}, {}),
    "COCODetection": ("coco_root", {"train": 9, "val": 2}, {"classes": ["bee"], "fit": "pad"}),
    "Cityscapes": ("cityscapes_root", {"train": 2, "val": 2}, {}),
    "MaskFolder": ("mask_root", {"train": 2}, {"classes": ["a", "b", "c"], "ignore_index": None}),
    "VOCDetection": ("voc_root", {"train": 9}, {"size": 40, "channels": 1, "year": "2012"}),
    "VOCSegmentation": ("voc_masks_root", {"train": 9, "val": 2}, {"fit": "crop"}),
}
AUGMENT = [{"use": "RandomScaleCrop", "size": 24, "scale": [0.5, 1.5], "relative_to": "size"}]


@pytest.mark.parametrize("name", sorted(SPECS))
def test_it_can_be_built_completed_and_built_again(request, name):
    fixture, parts, options = SPECS[name]
    root = str(request.getfixturevalue(fixture)(parts))
    spec = {"use": name, "root": root, "augment": AUGMENT, "num_threads": 2, **options}
    assert check(spec, DATASET, provided={}) == []
    complete = blueprint(spec, DATASET).plain()
    assert json.loads(json.dumps(complete)) == complete
    assert check(complete, DATASET, provided={}) == []
    assert build(spec, DATASET).image_shape == build(complete, DATASET).image_shape


@pytest.mark.parametrize(
    ("name", "option", "words"),
    [
        ("VOCDetection", {"fit": "padded"}, ["fit", "Did you mean 'pad'?"]),
        ("COCODetection", {"fit": "crop"}, ["fit", "must be 'stretch' or 'pad', found"]),
        ("MaskFolder", {"size": "big"}, ["size", "a whole number or a list", "the text 'big'"]),
        ("MaskFolder", {"ignore_index": 1}, ["ignore_index", "must be no class's index, 3 to 255, or null, found 1"]),
        ("COCODetection", {"images": ["x"]}, ["images", "a mapping"]),
        ("Cityscapes", {"mask": "labelIds"}, ["mask", "Did you mean 'masks'?"]),
    ],
)
def test_what_is_wrong_is_said_where_it_stands(request, name, option, words):
    fixture, parts, options = SPECS[name]
    root = str(request.getfixturevalue(fixture)(parts))
    (problem,) = check({"use": name, "root": root, **options, **option}, DATASET, provided={})
    assert all(word in str(problem) for word in words), problem
