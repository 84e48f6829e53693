import logging
import os

import numpy as np
import pytest
import torch
from annotated_roots import PAINT
from PIL import Image
from torchvision.transforms import v2

from distill.data import MaskFolder
from distill.data.loader import Loader
from distill.data.split import Split
from distill.data.transforms import (
    ColorJitter,
    EachImage,
    RandomCrop,
    RandomHorizontalFlip,
    RandomResizedCrop,
    RandomScaleCrop,
)

CLASSES = ["ground", "cell", "border"]


def folder(root, **options):
    return MaskFolder(root=str(root), **{"classes": CLASSES, "size": [32, 40], **options})


def parts_of(data):
    return [
        [data.source.names[index] for index in part.indices] for part in (data.train, data.validation or [], data.test)
    ]


def test_own_parts_are_used(mask_root):
    data = folder(mask_root({"train": 5, "val": 2, "test": 3})).load()
    train, validation, test = parts_of(data)
    assert train == [f"train/images/{number:03}.png" for number in range(5)]
    assert validation == ["val/images/000.png", "val/images/001.png"]
    assert test == [f"test/images/{number:03}.png" for number in range(3)]


@pytest.mark.parametrize("other", ["val", "test", "valid", "validation", "testing"])
def test_the_only_other_part_is_the_test(mask_root, other):
    train, validation, test = parts_of(folder(mask_root({"train": 10, other: 2})).load())
    assert (len(train), len(validation)) == (9, 1)
    assert test == [f"{other}/images/000.png", f"{other}/images/001.png"]


@pytest.mark.parametrize("part", ["train", "."])
def test_without_other_parts_both_are_held_out(mask_root, part):
    data = folder(mask_root({part: 20}), split=Split(validation=3, test=0.2)).load()
    assert [len(part) for part in parts_of(data)] == [13, 3, 4]


def test_the_parts_may_lie_below_images_and_annotations(mask_root):
    root = mask_root({".": 4}, images="images/training", masks="annotations/training")
    mask_root({".": 2}, images="images/validation", masks="annotations/validation")
    train, validation, test = parts_of(folder(root, split=Split(validation=1)).load())
    assert sorted(train + validation) == [f"images/training/{number:03}.png" for number in range(4)]
    assert test == ["images/validation/000.png", "images/validation/001.png"]


def test_an_image_and_its_mask_come_together(mask_root):
    root = mask_root({"train": 6, "val": 2})
    (root / "val" / "masks" / "000.png").rename(root / "val" / "masks" / "spare.png")
    Image.open(root / "val" / "masks" / "spare.png").save(root / "val" / "masks" / "000.png")
    source = folder(root).load().source
    samples = source.read_samples(np.arange(8)[::-1], lambda sample, place: sample)
    images = source.read(np.arange(8)[::-1])
    for (image, mask), same in zip(samples, images, strict=True):
        assert image.equal(same)
        assert image.permute(1, 2, 0).tolist() == PAINT[mask.values.numpy()].tolist()


def loader_of(data, batch_size, **options):
    return Loader(
        data.train,
        batch_size=batch_size,
        mean=[0] * 3,
        std=[1 / 255] * 3,
        transforms=data.transforms,
        device=torch.device("cpu"),
        **{"shuffle": True, "drop_last": True, **options},
    )


@pytest.mark.parametrize(
    "augment",
    [
        [],
        [RandomHorizontalFlip()],
        [RandomCrop(size=20, padding=2)],
        [RandomScaleCrop([32, 40]), RandomHorizontalFlip(), ColorJitter(0.1)],
        [RandomResizedCrop(20)],
        [EachImage(v2.RandomHorizontalFlip()), RandomScaleCrop([32, 40], (0.3, 1.1), "size")],
    ],
)
def test_any_chain_gives_the_same_views_in_any_batch_order_and_rank(mask_root, augment):
    root = mask_root({"train": 9, "val": 2})
    seen = []
    for batch_size, num_threads, world_size in ((2, 1, 1), (4, 3, 2)):
        data = folder(root, augment=augment, num_threads=num_threads).load()
        views = {}
        for rank in range(world_size):
            for batch in loader_of(data, batch_size, rank=rank, world_size=world_size).epoch(1):
                assert batch.images.shape[1:] == (3, 32, 40)
                assert batch.labels.shape[1:] == (32, 40)
                assert batch.labels.dtype == torch.int64
                for index, image, mask in zip(batch.indices.tolist(), batch.images, batch.labels, strict=True):
                    views[index] = image, mask
        seen.append(views)
    assert len(seen[0]) == 8
    assert seen[0].keys() == seen[1].keys()
    assert all(torch.equal(a, b) for index in seen[0] for a, b in zip(seen[0][index], seen[1][index], strict=True))


def test_evaluation_sees_the_canvas(mask_root):
    data = folder(mask_root({"train": 6, "val": 2}), fit="pad").load()
    image, mask = data.source.read_samples(np.array([5]), lambda sample, place: data.source.fit_sample(sample))[0]
    assert image.shape == (3, 32, 40)
    assert image.equal(data.source.fit(data.source.read(np.array([5]))[0]))
    assert ((mask.values == 255) == (image == 0).all(dim=0)).all()


def test_the_default_augmentation_keeps_the_aspect(mask_root):
    crop, flip = folder(mask_root({"train": 2})).transforms
    assert isinstance(crop, RandomScaleCrop)
    assert (crop.height, crop.width, crop.scale, crop.relative_to) == (32, 40, (0.5, 2.0), "size")
    assert isinstance(flip, RandomHorizontalFlip)


def write_mask(root, values, name="train/masks/001.png"):
    Image.fromarray(np.asarray(values, dtype=np.uint8)).save(root / name)


def read_all(data):
    return data.source.read_samples(np.arange(len(data.source)), lambda sample, place: sample)


def image_size(root, name="train/images/001.png"):
    return Image.open(root / name).size


def test_a_mask_of_another_size_is_named(mask_root):
    root = mask_root({"train": 9})
    write_mask(root, np.zeros((7, 5)))
    width, height = image_size(root)
    message = (
        f"mask {root}/train/masks/001.png must have the size of its image train/images/001.png, {width}x{height}, "
        "found 5x7"
    )
    with pytest.raises(ValueError, match=message):
        read_all(folder(root).load())


def test_a_value_that_is_no_class_is_named(mask_root):
    root = mask_root({"train": 9})
    width, height = image_size(root)
    values = np.zeros((height, width))
    values[2, 3:5] = 3
    values[4, 4] = 255
    write_mask(root, values)
    message = (
        f"mask {root}/train/masks/001.png must hold class indices from 0 to 2, and 255 where it is not known, found 3 "
        "in 2 pixels"
    )
    with pytest.raises(ValueError, match=message):
        read_all(folder(root).load())
    with pytest.raises(ValueError, match="must hold class indices from 0 to 2, found 3, 255 in 3 pixels"):
        read_all(folder(root, ignore_index=None).load())
    with pytest.raises(ValueError, match="and 3 where it is not known, found 255 in 1 pixels"):
        read_all(folder(root, ignore_index=3).load())


def test_what_is_ignored_is_unknown(mask_root):
    root = mask_root({"train": 9})
    width, height = image_size(root)
    values = np.zeros((height, width))
    values[2, 3:5] = 9
    write_mask(root, values)
    data = folder(root, ignore_index=9).load()
    mask = read_all(data)[data.source.names.index("train/images/001.png")].annotation.values
    assert mask[2, 3:5].tolist() == [255, 255]
    assert int(mask.long().sum()) == 510


def test_an_image_without_mask_is_named(mask_root):
    root = mask_root({"train": 9})
    for number in range(1, 6):
        (root / "train" / "masks" / f"00{number}.png").unlink()
    message = (
        f"each image in {root}/train/images must have its mask in {root}/train/masks, found none for 001, 002, 003 "
        "and 2 more"
    )
    with pytest.raises(ValueError, match=message):
        folder(root).load()


def test_masks_without_image_are_left_out_and_said(mask_root, caplog):
    root = mask_root({"train": 9})
    (root / "train" / "images" / "002.png").unlink()
    with caplog.at_level(logging.WARNING):
        data = folder(root).load()
    assert len(data.source) == 8
    assert f"left out masks in {root}/train/masks without an image: 002" in caplog.text


def test_two_images_of_one_name_are_refused(mask_root):
    root = mask_root({"train": 9})
    Image.open(root / "train/images/001.png").save(root / "train/images/001.jpg")
    message = r"train/images/001.jpg and train/images/001.png must not both be named 001"
    with pytest.raises(ValueError, match=message):
        folder(root).load()


def test_images_of_other_formats_have_png_masks(mask_root):
    root = mask_root({"train": 9})
    Image.open(root / "train/images/001.png").save(root / "train/images/001.JPG", "JPEG")
    (root / "train/images/001.png").unlink()
    data = folder(root).load()
    assert data.source.masks[data.source.names.index("train/images/001.JPG")].name == "train/masks/001.png"


def test_fingerprint_sees_what_decides_the_samples(mask_root):
    root = mask_root({"train": 8})
    fingerprint = folder(root).load().fingerprint
    assert folder(root, augment=[], num_threads=1).load().fingerprint == fingerprint
    for options in (
        {"fit": "stretch"},
        {"size": 32},
        {"ignore_index": None},
        {"classes": ["ground", "cell", "edge"]},
        {"channels": 1},
        {"split": Split(seed=1)},
    ):
        assert folder(root, **options).load().fingerprint != fingerprint
    mask = root / "train" / "masks" / "001.png"
    mask.write_bytes(mask.read_bytes() + b" ")
    assert folder(root).load().fingerprint != fingerprint


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"classes": ["only"]}, "classes must be from 2 to 255 names, found 1"),
        ({"classes": ["a", "b", "a"]}, "classes must be names that differ, found 'a' more than once"),
        ({"ignore_index": 2}, "ignore_index must be no class's index, 3 to 255, or null, found 2"),
        ({"fit": "squeeze"}, "fit must be one of 'stretch', 'pad', 'crop', found 'squeeze'"),
        ({"size": [4]}, r"size must be height and width in pixels, or one number for both, at least 1, found \[4\]"),
        ({"channels": 2}, "channels must be 1"),
        ({"num_threads": 0}, "num_threads must be at least 1"),
        ({"mean": [0.5, 0.5]}, "mean must have 1 or 3"),
        ({"augment": [RandomCrop(size=200)]}, r"augment\[0\] \(RandomCrop\) cannot take images of shape \[3, 32, 40\]"),
        ({"archive": "none.zip"}, "archive must be a file in root"),
    ],
)
def test_wrong_options_are_refused(mask_root, options, message):
    with pytest.raises(ValueError, match=message):
        folder(mask_root({"train": 2}), **options)


@pytest.mark.parametrize(
    ("folders", "message"),
    [
        ([], "root must hold images/ and masks/, or train/ val/ test/ with them, found no folder in"),
        (["images"], r"must hold masks/ beside images/, found \['images'\]"),
        (["val/images", "val/masks"], "root must hold train/ beside val/, found none in"),
        (["train/images"], r"train must hold masks/ beside images/, found \['images'\]"),
        (["train/masks"], r"train must hold images/ and masks/, found \['masks'\]"),
    ],
)
def test_wrong_folders_are_refused_at_construction(tmp_path, folders, message):
    for name in folders:
        (tmp_path / name).mkdir(parents=True)
    with pytest.raises(ValueError, match=message):
        folder(tmp_path)


def test_a_part_without_images_is_refused(mask_root):
    root = mask_root({"train": 2, "val": 0})
    with pytest.raises(ValueError, match=f"there must be images below {root}/val/images, found none"):
        folder(root).load()


@pytest.mark.skipif("DISTILLERY_DATA" not in os.environ, reason="DISTILLERY_DATA names no folder with nuclei.tar.xz")
def test_the_real_nuclei():
    data = MaskFolder(archive="nuclei.tar.xz", classes=["background", "nucleus", "boundary"], size=128).load()
    assert [len(part) for part in parts_of(data)] == [451, 70, 143]
    masks = torch.stack([sample.annotation.values for sample in read_all(data)])
    assert masks.shape == (664, 128, 128)
    counts = torch.bincount(masks.flatten().long()).tolist()
    assert len(counts) == 3
    without = int(((masks == 1).sum(dim=(1, 2)) == 0).sum())
    assert without == 5
