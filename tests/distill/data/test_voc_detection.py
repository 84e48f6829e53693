import logging
import os
import re

import numpy as np
import pytest
import torch
from annotated_roots import PaintedObjects
from torchvision import datasets
from torchvision.transforms import v2

from distill.data import VOCDetection
from distill.data.loader import Loader
from distill.data.split import Split
from distill.data.transforms import ColorJitter, EachImage, RandomCrop, RandomHorizontalFlip, RandomScaleCrop


def folder(root, **options):
    return VOCDetection(root=str(root), **{"size": [48, 64], **options})


def read_all(data):
    return data.source.read_samples(np.arange(len(data.source)), lambda sample, place: sample)


def names_of(data, part):
    return [re.split(r"[/.]", data.source.names[index])[-2] for index in part.indices]


def seen(image, colour):
    """Returns the box around all pixels of a colour."""
    rows, columns = torch.nonzero((image == torch.tensor(colour)[:, None, None]).all(dim=0), as_tuple=True)
    return [columns.min().item(), rows.min().item(), columns.max().item() + 1, rows.max().item() + 1]


def test_boxes_are_where_the_objects_are_in_the_image(voc_root):
    data = folder(voc_root({"train": 9, "val": 3})).load()
    assert data.classes == ("__background__", "ant", "bee", "cow")
    num_objects = 0
    for image, found in read_all(data):
        assert found.boxes.dtype == torch.float32
        assert found.labels.dtype == torch.int64
        for label in found.labels.unique().tolist():
            chosen = found.boxes[found.labels == label]
            around = [*chosen[:, :2].amin(dim=0).tolist(), *chosen[:, 2:].amax(dim=0).tolist()]
            assert around == seen(image, PaintedObjects.colours[label - 1])
            num_objects += 1
        assert found.ignored.tolist() == (found.labels == 3).tolist()  # cows are difficult
        absent = set(range(1, 4)) - set(found.labels.tolist())
        assert not any((image[label - 1] > 0).any() for label in absent)
    assert num_objects > 12
    assert any(len(sample.annotation.boxes) == 0 for sample in read_all(data))


@pytest.mark.parametrize("prefix", ["", "VOC2012", "VOCdevkit/VOC2012"])
def test_lists_are_torchvision_s(voc_root, tmp_path, prefix):
    root = voc_root({"train": 9, "val": 3}, prefix)
    data = folder(root, year="2012").load()
    assert names_of(data, data.test) == [f"val_{number:03}" for number in range(3)]
    assert len(data.validation) == 1
    if prefix == "VOCdevkit/VOC2012":
        for part, first in (("train", 0), ("val", 9)):
            official = datasets.VOCDetection(str(root), year="2012", image_set=part, download=False)
            last = first + len(official)
            files = [str(root / name) for name in data.source.names[first:last]]
            assert files == official.images
            assert [str(root / file.name) for file in data.source.annotation_files[first:last]] == official.targets
            names = [
                [each["name"] for each in official[number][1]["annotation"].get("object", [])]
                for number in range(len(official))
            ]
            ours = [sample.annotation.labels.tolist() for sample in read_all(data)[first:last]]
            assert [[data.classes[label] for label in labels] for labels in ours] == names


def test_all_three_lists_are_the_parts(voc_root):
    data = folder(voc_root({"train": 5, "val": 2, "test": 3})).load()
    assert names_of(data, data.train) == [f"train_{number:03}" for number in range(5)]
    assert names_of(data, data.validation) == ["val_000", "val_001"]
    assert names_of(data, data.test) == [f"test_{number:03}" for number in range(3)]


def test_trainval_stands_for_train(voc_root):
    data = folder(voc_root({"trainval": 10, "test": 3})).load()
    assert [len(part) for part in (data.train, data.validation, data.test)] == [9, 1, 3]
    assert names_of(data, data.test)[0] == "test_000"


def test_without_lists_all_that_is_annotated_is_divided(voc_root):
    root = voc_root({"train": 20})
    (root / "ImageSets" / "Main" / "train.txt").unlink()
    data = folder(root, split=Split(validation=2, test=3)).load()
    assert [len(part) for part in (data.train, data.validation, data.test)] == [15, 2, 3]


def test_chosen_classes_have_their_labels_and_others_are_counted(voc_root, caplog):
    root = voc_root({"train": 9, "val": 3})
    every = [sample.annotation.labels for sample in read_all(folder(root).load())]
    with caplog.at_level(logging.WARNING):
        data = folder(root, classes=["cow", "ant"]).load()
    assert data.classes == ("__background__", "cow", "ant")
    chosen = [sample.annotation.labels for sample in read_all(data)]
    for all_labels, labels in zip(every, chosen, strict=True):
        assert labels.tolist() == [{1: 2, 3: 1}[label] for label in all_labels.tolist() if label != 2]
    together = torch.cat(every)
    message = (
        f"of {len(together)} boxes in {root} 0 reach beyond .*, 0 are .* and so are {int((together == 2).sum())} of"
    )
    assert re.search(message, caplog.text)


def test_named_classes_need_no_annotation_to_be_read(voc_root):
    root = voc_root({"train": 9})
    for path in (root / "Annotations").iterdir():
        path.write_text("damaged")
    assert folder(root, classes=["ant"]).num_classes == 2
    with pytest.raises(ValueError, match="cannot read annotation"):
        folder(root)


def test_a_class_without_objects_is_said(voc_root, caplog):
    root = voc_root({"train": 9})
    with caplog.at_level(logging.WARNING):
        folder(root, classes=["ant", "bee", "cow", "cwo"]).load()
    assert caplog.messages == [f"in {root} there is no object of cwo"]


@pytest.mark.parametrize(
    ("path", "message"),
    [
        (
            "JPEGImages/train_001.jpg",
            "JPEGImages must hold a file for each image that is listed, found none for train_001",
        ),
        ("Annotations/train_001.xml", "Annotations must hold a file for each image that is listed, found none for"),
        ("ImageSets/Main/train.txt", "ImageSets/Main must hold train.txt or trainval.txt, found neither"),
    ],
)
def test_what_is_missing_is_named(voc_root, path, message):
    root = voc_root({"train": 9, "val": 2})
    (root / path).unlink()
    with pytest.raises(ValueError, match=message):
        folder(root).load()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("\n", r"list .*val.txt must name images, found none"),
        ("val_000\nval_001\nval_000\n", r"list .*val.txt must name each image once, found val_000 twice"),
        ("val_000 1\ntrain_001  1\n", r"train.txt and ImageSets/Main/val.txt must not share images, found train_001"),
    ],
)
def test_wrong_lists_are_refused(voc_root, content, message):
    root = voc_root({"train": 9, "val": 2})
    (root / "ImageSets" / "Main" / "val.txt").write_text(content)
    with pytest.raises(ValueError, match=message):
        folder(root)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"fit": "crop"}, "fit must be one of 'stretch', 'pad', found 'crop'"),
        ({"classes": []}, "classes must be names of objects that differ, at least one"),
        ({"classes": ["__background__", "ant"]}, "classes must be names of objects that differ"),
        ({"size": -1}, "size must be height and width"),
        ({"split": Split(train=9)}, r"split.train must leave .* found 9 of 6 training images"),
    ],
)
def test_wrong_options_are_refused(voc_root, options, message):
    with pytest.raises(ValueError, match=message):
        folder(voc_root({"train": 9}), **options)


@pytest.mark.parametrize(
    "augment",
    [
        [],
        [RandomHorizontalFlip()],
        [RandomCrop(size=40, padding=2)],
        [ColorJitter(0.2), RandomScaleCrop([48, 64], (0.3, 2.0), "size"), RandomHorizontalFlip()],
        [EachImage(v2.RandomZoomOut()), EachImage(v2.RandomIoUCrop())],
    ],
)
def test_any_chain_gives_the_same_views_in_any_batch_order_and_rank(voc_root, augment):
    root = voc_root({"train": 9, "val": 2})
    seen = []
    for batch_size, num_threads, world_size in ((2, 1, 1), (4, 3, 2)):
        data = folder(root, augment=augment, num_threads=num_threads, fit="pad").load()
        views = {}
        for rank in range(world_size):
            loader = Loader(
                data.train,
                batch_size=batch_size,
                mean=data.mean,
                std=data.std,
                transforms=data.transforms,
                shuffle=True,
                drop_last=True,
                rank=rank,
                world_size=world_size,
                device=torch.device("cpu"),
            )
            for batch in loader.epoch(1):
                assert batch.images.shape[1:] == (3, 48, 64)
                objects = batch.labels
                rows = zip(batch.indices.tolist(), batch.images, objects.boxes, objects.labels, strict=True)
                views |= {index: (image, boxes, labels) for index, image, boxes, labels in rows}
        seen.append(views)
    assert len(seen[0]) == 8
    assert seen[0].keys() == seen[1].keys()
    assert all(torch.equal(a, b) for index in seen[0] for a, b in zip(seen[0][index], seen[1][index], strict=True))
    bounds = torch.tensor([64, 48, 64, 48])
    assert all((boxes >= 0).all() and (boxes <= bounds).all() for _, boxes, _ in seen[0].values())
    assert sum(len(boxes) for _, boxes, _ in seen[0].values()) > 4


def test_fingerprint_sees_what_decides_the_samples(voc_root):
    root = voc_root({"train": 20})
    fingerprint = folder(root).load().fingerprint
    assert folder(root, augment=[], num_threads=1).survey().fingerprint == fingerprint
    assert folder(root, classes=["ant", "bee", "cow"]).load().fingerprint == fingerprint
    for options in ({"fit": "pad"}, {"size": 48}, {"classes": ["bee", "ant", "cow"]}, {"channels": 1}):
        assert folder(root, **options).load().fingerprint != fingerprint
    path = root / "Annotations" / "train_001.xml"
    path.write_text(path.read_text() + " ")
    assert folder(root).load().fingerprint != fingerprint


@pytest.mark.skipif("DISTILLERY_DATA" not in os.environ, reason="DISTILLERY_DATA names no folder with bccd.tar.xz")
def test_the_real_blood_cells():
    data = VOCDetection(archive="bccd.tar.xz").load()
    assert data.classes == ("__background__", "Platelets", "RBC", "WBC")
    assert [len(part) for part in (data.train, data.validation, data.test)] == [205, 87, 72]
    every = np.arange(len(data.source))
    found = [data.source.annotate(index, 480, 640) for index in every]
    assert torch.bincount(torch.cat([each.labels for each in found])).tolist() == [0, 361, 4155, 372]
    sides = torch.cat([each.boxes[:, 2:] - each.boxes[:, :2] for each in found])
    assert int((sides.amin(dim=1) <= 1).sum()) == 2  # of one pixel each
