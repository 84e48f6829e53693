"""Pascal VOC's XML files, honest, damaged and hostile."""

import logging

import numpy as np
import pytest
from PIL import Image

from distill.data import VOCDetection


def folder(root, **options):
    return VOCDetection(root=str(root), **{"size": [48, 64], **options})


def read_all(data):
    return data.source.read_samples(np.arange(len(data.source)), lambda sample, place: sample)


def write(root, content, name="train_001"):
    (root / "Annotations" / f"{name}.xml").write_text(content)


def one_object(box="<xmin>3</xmin><ymin>4</ymin><xmax>9</xmax><ymax>12</ymax>", name="<name>ant</name>", more=""):
    return f"<annotation>{more}<object>{name}<bndbox>{box}</bndbox></object></annotation>"


def sides(*values):
    names = ("xmin", "ymin", "xmax", "ymax")[: len(values)]
    return "".join(f"<{side}>{value}</{side}>" for side, value in zip(names, values, strict=True))


def test_boxes_are_cut_off_or_left_out_and_counted_once(voc_root, caplog):
    root = voc_root({"train": 9})
    boxes = [(0, 3, 9, 12), (3, 4, 5000, 9), (-9, 4, 0, 9), (9, 4, 3, 9), (6, 6, 6, 6), (2.5, 3.5, 8.25, 9)]
    objects = "".join(f"<object><name>ant</name><bndbox>{sides(*box)}</bndbox></object>" for box in boxes)
    width, height = 40, 32
    size = f"<size><width>{width}</width><height>{height}</height></size>"
    write(root, f"<annotation>{size}{objects}</annotation>")
    for other in (root / "Annotations").iterdir():
        if other.stem != "train_001":
            other.write_text("<annotation/>")
    Image.new("RGB", (width, height)).save(root / "JPEGImages" / "train_001.jpg")
    with caplog.at_level(logging.WARNING):
        data = folder(root).load()
    found = read_all(data)[1].annotation
    assert found.boxes.tolist() == [[0, 2, 9, 12], [2, 3, 40, 9], [5, 5, 6, 6], [1.5, 2.5, 8.25, 9]]
    assert caplog.messages == [
        f"of 6 boxes in {root} 2 reach beyond their image and are cut off, 2 are smaller than a pixel or outside and "
        "are left out, and so are 0 of other classes"
    ]


def test_parts_of_an_object_are_none(voc_root):
    root = voc_root({"train": 9})
    part = f"<part><name>head</name><bndbox>{sides(1, 1, 5, 5)}</bndbox></part>"
    write(root, one_object(name=f"<name> ant </name>{part}<difficult>1</difficult>"))
    data = folder(root).load()
    assert "head" not in data.classes
    found = read_all(data)[1].annotation
    assert found.boxes.tolist() == [[2, 3, 9, 12]]
    assert found.ignored.tolist() == [True]


BOMB = '<!DOCTYPE a [<!ENTITY b "bbbb"><!ENTITY c "&b;&b;&b;">]>'
OUTSIDE = '<!DOCTYPE a [<!ENTITY b SYSTEM "file:///etc/passwd">]>'


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "no element found"),
        ("<annotation><object>", "no element found"),
        ("no xml", "syntax error"),
        (BOMB + one_object(name="<name>&c;</name>"), "must not declare a document type or entities"),
        (OUTSIDE + one_object(name="<name>&b;</name>"), "must not declare a document type or entities"),
        ("<!DOCTYPE a>" + one_object(), "must not declare a document type or entities"),
        (one_object(name="<name>&b;</name>"), "undefined entity"),
        (one_object(box=sides(1, 2, 3)), "object 0 must have a name and a box, found no ymax"),
        (one_object(name=""), "object 0 must have a name and a box, found no name"),
        (one_object(box=sides(1, 2, 3, "x")), "annotation/object/bndbox/ymax must be a number, found 'x'"),
        (one_object(box=sides(1, 2, 3, "inf")), "annotation/object/bndbox/ymax must be a number, found 'inf'"),
        (one_object(more="<size><width>a</width></size>"), "annotation/size/width must be a number, found 'a'"),
    ],
)
def test_damaged_and_hostile_annotations_are_named(voc_root, content, message):
    root = voc_root({"train": 9})
    write(root, content)
    with pytest.raises(ValueError, match=f"cannot read annotation {root}/Annotations/train_001.xml: .*{message}"):
        folder(root, classes=["ant", "bee", "cow"]).load()


def test_a_huge_annotation_is_refused(voc_root):
    root = voc_root({"train": 9})
    write(root, one_object() + " " * (16 * 2**20))
    with pytest.raises(ValueError, match=r"train_001.xml: at most 16,777,216 bytes are allowed"):
        folder(root)


def test_an_image_of_another_size_than_annotated_is_named(voc_root):
    root = voc_root({"train": 9})
    write(root, one_object(more="<size><width>7</width><height>5</height></size>"))
    data = folder(root).load()
    message = f"image {root}/JPEGImages/train_001.jpg must have the size that its annotation says, 7x5, found "
    with pytest.raises(ValueError, match=message):
        read_all(data)
    write(root, one_object(more="<size><width>0</width><height>0</height></size>"))  # it does not say
    assert len(read_all(folder(root).load())[1].annotation.boxes) == 1
