"""Files of detection data as exports and copies leave them behind."""

import json

import numpy as np
import pytest
from PIL import Image

from distill.data import COCODetection, VOCDetection
from distill.data.split import Split


def labels_of(data):
    every = data.load().source
    return [each.annotation for each in every.read_samples(np.arange(len(every)), lambda sample, place: sample)]


@pytest.mark.parametrize("images", ["pictures", "./pictures", "pictures/./", "/pictures/"])
def test_a_folder_of_images_may_be_written_as_paths_are(coco_root, images):
    root = coco_root({"train": 9}, file="{}.json", folder="pictures")
    data = COCODetection(root=str(root), annotations={"train": "train.json"}, images={"train": images})
    assert data.load().source.names[0] == "pictures/000.png"


def test_images_may_lie_in_the_root_itself(coco_root):
    root = coco_root({"train": 9}, file="{}.json", folder=".")
    data = COCODetection(root=str(root), annotations={"train": "train.json"}, images={"train": "."})
    assert data.load().source.names[0] == "000.png"


def test_parts_of_coco_must_not_share_images(coco_root):
    root = coco_root({"train": 9}, file="{}.json", folder="pictures")
    (root / "val.json").write_bytes((root / "train.json").read_bytes())
    data = COCODetection(
        root=str(root),
        annotations={"train": "train.json", "val": "val.json"},
        images={"train": "pictures", "val": "pictures"},
    )
    message = f"{root}/train.json and val.json must not share images, found pictures/000.png in both"
    with pytest.raises(ValueError, match=message):
        data.load()


@pytest.mark.parametrize(("value", "is_crowd"), [("0", False), ("1", True), (None, False), (1, True), (False, False)])
def test_crowds_may_be_written_as_text(coco_root, value, is_crowd):
    root = coco_root({"train": 9})
    path = root / "annotations" / "instances_train2017.json"
    content = json.loads(path.read_text())
    for each in content["annotations"]:
        each["iscrowd"] = value
    path.write_text(json.dumps(content))
    found = [bool(each) for sample in labels_of(COCODetection(root=str(root))) for each in sample.ignored]
    assert set(found) == {is_crowd}


def test_what_is_no_xml_file_is_no_annotation(voc_root):
    root = voc_root({"train": 20})
    (root / "ImageSets" / "Main" / "train.txt").unlink()
    expected = [each.labels.tolist() for each in labels_of(VOCDetection(root=str(root)))]
    for name in (".DS_Store", "._train_000.xml", "README.txt"):
        (root / "Annotations" / name).write_bytes(b"\x00")
    data = VOCDetection(root=str(root), split=Split(validation=2, test=3))
    assert [each.labels.tolist() for each in labels_of(data)] == expected


def test_two_images_of_one_name_are_refused(voc_root):
    root = voc_root({"train": 9})
    (file,) = (root / "JPEGImages").glob("train_003.*")
    Image.open(file).save(file.with_suffix(".bmp"))
    message = rf"JPEGImages must hold one file for each image, found JPEGImages/train_003.bmp and .*{file.name}$"
    with pytest.raises(ValueError, match=message):
        VOCDetection(root=str(root)).load()


def test_a_list_that_is_no_text_is_named(voc_root):
    root = voc_root({"train": 9})
    (root / "ImageSets" / "Main" / "train.txt").write_bytes(b"train_000\n\xff")
    with pytest.raises(ValueError, match=f"list {root}/ImageSets/Main/train.txt must be text in UTF-8: "):
        VOCDetection(root=str(root))
