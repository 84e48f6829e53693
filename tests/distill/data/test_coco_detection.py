import json
import logging

import numpy as np
import pytest
import torch
from annotated_roots import PaintedObjects

from distill.data import COCODetection

ANNOTATIONS = "annotations/instances_{}2017.json"


def folder(root, **options):
    return COCODetection(root=str(root), **{"size": [48, 64], **options})


def read_all(data):
    return data.source.read_samples(np.arange(len(data.source)), lambda sample, place: sample)


def edit(root, change, part="train"):
    path = root / ANNOTATIONS.format(part)
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


def test_boxes_are_where_the_objects_are_and_ids_have_no_gaps(coco_root):
    data = folder(coco_root({"train": 9, "val": 3})).load()
    assert data.classes == ("__background__", "bee", "cow", "ant")  # by their ids, 7, 21 and 90
    assert [len(part) for part in (data.train, data.validation, data.test)] == [8, 1, 3]
    num_objects = 0
    for image, found in read_all(data):
        black = torch.zeros_like(image)
        for box, label in zip(found.boxes.int().tolist(), found.labels.tolist(), strict=True):
            colour = PaintedObjects.colours[PaintedObjects.names.index(data.classes[label])]
            left, top, right, bottom = box
            black[:, top:bottom, left:right] = torch.tensor(colour, dtype=torch.uint8)[:, None, None]
            num_objects += 1
        assert black.equal(image)
        assert found.ignored.tolist() == (found.labels == 2).tolist()  # cows are crowds
    assert num_objects > 12


def test_images_are_in_the_order_of_the_file(coco_root):
    data = folder(coco_root({"train": 9, "val": 3})).load()
    expected = [f"train2017/{number:03}.png" for number in range(9)] + [f"val2017/{n:03}.png" for n in range(3)]
    assert data.source.names == expected
    assert data.test.indices.tolist() == [9, 10, 11]


def test_exported_files_are_found(coco_root):
    root = coco_root({"train": 6, "valid": 2, "test": 3}, file="{}/_annotations.coco.json", folder="{}")
    data = folder(root).load()
    assert [len(part) for part in (data.train, data.validation, data.test)] == [6, 2, 3]
    assert data.source.names[6] == "valid/000.png"


def test_files_may_be_anywhere(coco_root):
    root = coco_root({"train": 9, "val": 3}, file="of {}.json", folder="pictures/{}")
    parts = {"annotations": {"train": "of train.json", "test": "of val.json"}}
    data = folder(root, **parts, images={"train": "pictures/train/", "test": "pictures/val"}).load()
    assert data.source.names[9:] == [f"pictures/val/{number:03}.png" for number in range(3)]
    assert len(data.test) == 3
    only = folder(root, annotations={"train": "of train.json"}, images={"train": "pictures/train"}).load()
    assert [len(part) for part in (only.train, only.validation, only.test)] == [6, 1, 2]


def test_chosen_classes_have_their_labels_and_others_are_counted(coco_root, caplog):
    root = coco_root({"train": 9, "val": 3})
    every = [sample.annotation.labels for sample in read_all(folder(root).load())]
    with caplog.at_level(logging.WARNING):
        data = folder(root, classes=["ant", "bee"]).load()
    for all_labels, sample in zip(every, read_all(data), strict=True):
        assert sample.annotation.labels.tolist() == [{1: 2, 3: 1}[n] for n in all_labels.tolist() if n != 2]
    together = torch.cat(every)
    assert f"of {len(together)} boxes in" in caplog.text
    assert f"and so are {int((together == 2).sum())} of other classes" in caplog.text


def test_boxes_are_cut_off_or_left_out_and_counted_once(coco_root, caplog):
    root = coco_root({"train": 9})
    boxes = [[-2, 3, 9, 12], [3.5, 4.25, 5000, 9], [500, 4, 10, 9], [9, 4, 0, 9], [9, 4, -3, 9], [6, 6, 0.5, 6]]

    def change(content):
        of_image = {"image_id": 900, "category_id": 7}
        content["annotations"] = [{**of_image, "bbox": box, "iscrowd": 0} for box in boxes]
        content["images"][0] |= {"width": None}

    edit(root, change)
    with caplog.at_level(logging.WARNING):
        data = folder(root, classes=["bee"]).load()
    sample = read_all(data)[0]
    width = sample.image.shape[2]
    assert sample.annotation.boxes.tolist() == [[0, 3, 7, 15], [3.5, 4.25, width, 13.25]]
    (message,) = caplog.messages
    # Without a width, what is beyond the right border cannot be counted.
    assert message == (
        f"of 6 boxes in {root} 1 reach beyond their image and are cut off, 3 are smaller than a pixel or outside and "
        "are left out, and so are 0 of other classes"
    )


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda content: content.pop("images"), "the key 'images' is missing"),
        (lambda content: content.pop("annotations"), "the key 'annotations' is missing"),
        (lambda content: content["annotations"][0].pop("bbox"), "the key 'bbox' is missing"),
        (
            lambda content: content["categories"].clear(),
            "categories must have ids and names .*, found none",
        ),
        (lambda content: content["categories"].append({"id": 1, "name": "ant"}), "found 1 ant, 7 bee, 21 cow, 90 ant"),
        (lambda content: content["categories"].append({"id": 7, "name": "dog"}), "found 7 bee, 7 dog, 21 cow, 90 ant"),
        (lambda content: content["images"].append(content["images"][0]), "images must have ids and file names"),
        (
            lambda content: content["annotations"][0].update(image_id=5),
            "annotations must be of an image and a category of the file, found image 5 and category",
        ),
        (lambda content: content["annotations"][0].update(category_id=5), "found image 9.. and category 5"),
        (
            lambda content: content["annotations"][0].update(bbox=[1, 2, 3]),
            r"bbox must be left, top.*found \[1, 2, 3\]",
        ),
        (lambda content: content["annotations"][0].update(bbox=[1, 2, 3, float("nan")]), "bbox must be left"),
        (lambda content: content["annotations"][0].update(bbox=[1, 2, 3, "4"]), r"found \[1, 2, 3, '4'\]"),
        (lambda content: content.update(images=3), "not iterable"),
    ],
)
def test_damaged_annotations_are_named(coco_root, change, message):
    root = coco_root({"train": 9, "val": 2})
    edit(root, change)
    with pytest.raises(
        ValueError, match=f"cannot read annotations {root}/annotations/instances_train2017.json: .*{message}"
    ):
        folder(root).load()


@pytest.mark.parametrize("content", ["", "{", "[]", "3", "[" * 100_000])
def test_what_is_no_such_json_is_named(coco_root, content):
    root = coco_root({"train": 9})
    (root / ANNOTATIONS.format("train")).write_text(content)
    with pytest.raises(ValueError, match=f"cannot read annotations {root}/annotations/instances_train2017.json: ."):
        folder(root)


def test_an_image_that_is_not_there_is_named(coco_root):
    root = coco_root({"train": 9})
    (root / "train2017" / "004.png").unlink()
    with pytest.raises(ValueError, match=f"{root}/train2017 must hold the images of its annotations, found no 004.png"):
        folder(root).load()


def test_a_name_does_not_lead_out_of_the_folder(coco_root, tmp_path):
    root = coco_root({"train": 9})
    edit(root, lambda content: content["images"][0].update(file_name="../annotations/../train2017/000.png"))
    with pytest.raises(ValueError, match=r"found no \.\./annotations"):
        folder(root).load()


def test_parts_must_have_the_same_categories(coco_root):
    root = coco_root({"train": 9, "val": 2})
    edit(root, lambda content: content["categories"].append({"id": 1, "name": "dog"}))
    message = (
        r"train2017.json must have the categories of the other parts, missing none, unknown \['dog'\]; option classes"
    )
    with pytest.raises(ValueError, match=message):
        folder(root).load()
    assert folder(root, classes=["dog", "ant"]).num_classes == 3
    with pytest.raises(ValueError, match=r"classes must be categories of .*val2017.json, found 'dog'"):
        folder(root, classes=["dog", "ant"]).load()
    with pytest.raises(ValueError, match=r"train2017.json, found 'bees'. Did you mean 'bee'\?"):
        folder(root, classes=["bees", "ant"]).load()
    with pytest.raises(ValueError, match=r"train2017.json, found 'lorry'; valid: ant, bee, cow, dog\.$"):
        folder(root, classes=["lorry"]).load()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"year": "2014"},
            "root must hold annotations/instances_train2014.json or train/_annotations.coco.json, found",
        ),
        ({"annotations": {"train": "x"}}, "annotations must stand beside images, .*, found no images"),
        ({"images": {"train": "x"}}, "images must stand beside annotations, .*, found no annotations"),
        (
            {"annotations": {"train": "x"}, "images": {"test": "x"}},
            r"annotations must name the parts .*\['train'\] and \['test'\]",
        ),
        ({"annotations": {"val": "x"}, "images": {"val": "x"}}, "must name the parts train and"),
        (
            {"annotations": {"train": "x"}, "images": {"train": "x"}},
            r"annotations.train must be a file in root, found no .*/x",
        ),
        ({"fit": "crop"}, "fit must be one of 'stretch', 'pad', found 'crop'"),
    ],
)
def test_wrong_options_are_refused(coco_root, options, message):
    with pytest.raises(ValueError, match=message):
        folder(coco_root({"train": 9}), **options)


def test_fingerprint_sees_boxes_and_not_outlines(coco_root):
    root = coco_root({"train": 9, "val": 2})
    fingerprint = folder(root).load().fingerprint
    edit(root, lambda content: [each.pop("segmentation") for each in content["annotations"]])
    assert folder(root).load().fingerprint == fingerprint
    edit(root, lambda content: content["annotations"][0]["bbox"].reverse())
    assert folder(root).load().fingerprint != fingerprint
