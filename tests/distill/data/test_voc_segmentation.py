import numpy as np
import pytest
from PIL import Image
from torchvision import datasets, models

from distill.data import VOCSegmentation
from distill.data.voc_segmentation import CLASSES


def folder(root, **options):
    return VOCSegmentation(root=str(root), **{"size": 16, **options})


def read_all(data):
    return data.source.read_samples(np.arange(len(data.source)), lambda sample, place: sample)


@pytest.mark.parametrize("part", ["train", "val"])
def test_files_and_masks_are_torchvision_s(voc_masks_root, part):
    root = voc_masks_root({"train": 10, "val": 3})
    data = folder(root).load()
    official = datasets.VOCSegmentation(str(root), year="2012", image_set=part, download=False)
    some = slice(0, 10) if part == "train" else slice(10, 13)
    assert [str(root / name) for name in data.source.names[some]] == official.images
    assert [str(root / file.name) for file in data.source.masks[some]] == official.masks
    for (image, mask), (their_image, their_mask) in zip(read_all(data)[some], official, strict=True):
        assert image.permute(1, 2, 0).tolist() == np.asarray(their_image.convert("RGB")).tolist()
        assert mask.values.tolist() == np.asarray(their_mask).tolist()
    assert [len(each) for each in (data.train, data.validation, data.test)] == [9, 1, 3]
    assert data.test.indices.tolist() == [10, 11, 12]


def test_classes_are_those_of_torchvision_s_models():
    weights = models.segmentation.FCN_ResNet50_Weights.COCO_WITH_VOC_LABELS_V1
    expected = [name.strip("_") for name in weights.meta["categories"]]
    assert list(CLASSES) == expected


@pytest.mark.parametrize("prefix", ["", "VOC2012/", "VOCdevkit/VOC2012/"])
def test_the_folders_may_be_deeper(voc_masks_root, prefix):
    assert len(folder(voc_masks_root({"train": 10, "val": 3}, prefix)).load().source) == 13


@pytest.mark.parametrize("form", ["trainaug.txt", "train_aug.txt", "paths"])
def test_the_augmented_set_has_its_own_masks(voc_masks_root, form):
    root = voc_masks_root({"train": 10, "val": 3})
    voc_masks_root({"trainaug": 12}, folder="SegmentationClassAug")
    names = root / "VOCdevkit" / "VOC2012" / "ImageSets" / "Segmentation" / "trainaug.txt"
    if form == "train_aug.txt":
        names.rename(names.with_name(form))
    if form == "paths":
        lines = names.read_text().split()
        paths = [f"/JPEGImages/{name}.jpg /SegmentationClassAug/{name}.png\n" for name in lines]
        names.write_text("".join(paths))
    data = folder(root, image_set="trainaug").load()
    folders = [file.name.split("/")[2] for file in data.source.masks]
    assert folders == ["SegmentationClassAug"] * 12 + ["SegmentationClass"] * 3
    assert len(data.test) == 3
    assert len(read_all(data)) == 15


def test_what_is_missing_is_named(voc_masks_root):
    root = voc_masks_root({"train": 10, "val": 3})
    base = root / "VOCdevkit" / "VOC2012"
    with pytest.raises(ValueError, match=r"root must hold SegmentationClassAug/, itself or in VOC2012/ or VOCdevkit/"):
        folder(root, image_set="trainaug")
    with pytest.raises(ValueError, match=r"root must hold SegmentationClass/, itself or in VOC2007/ or"):
        folder(root, year="2007")
    (base / "SegmentationClassAug").mkdir()
    with pytest.raises(ValueError, match=r"must hold trainaug.txt or train_aug.txt and val.txt, found no trainaug.txt"):
        folder(root, image_set="trainaug")
    (base / "SegmentationClass" / "train_003.png").unlink()
    with pytest.raises(ValueError, match=f"{base}/SegmentationClass must hold a file for each .* none for train_003"):
        folder(root).load()
    (base / "ImageSets" / "Segmentation" / "val.txt").unlink()
    with pytest.raises(ValueError, match=r"must hold train.txt and val.txt, found no val.txt"):
        folder(root)


def test_an_image_in_both_lists_is_refused(voc_masks_root):
    root = voc_masks_root({"train": 10, "val": 3})
    with (root / "VOCdevkit/VOC2012/ImageSets/Segmentation/val.txt").open("a") as file:
        file.write("train_002\n")
    with pytest.raises(ValueError, match=r"train.txt and .*val.txt must not share images, found train_002 in both"):
        folder(root)


def test_a_colour_mask_is_refused(voc_masks_root):
    root = voc_masks_root({"train": 10, "val": 3})
    path = root / "VOCdevkit/VOC2012/SegmentationClass/train_003.png"
    Image.open(path).convert("RGB").save(path)
    with pytest.raises(ValueError, match=f"cannot read mask {path}: masks must have one channel of class indices"):
        read_all(folder(root).load())


def test_an_unknown_set_is_refused(voc_masks_root):
    with pytest.raises(ValueError, match="image_set must be 'train' or 'trainaug', found 'trainval'"):
        folder(voc_masks_root({"train": 10, "val": 3}), image_set="trainval")
