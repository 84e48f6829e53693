import io
import logging
import struct
import zlib

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision import datasets
from torchvision.transforms import v2

from distill.data import ImageFolder
from distill.data.loader import Loader
from distill.data.split import Split
from distill.data.transforms import EachImage, RandomCrop, RandomHorizontalFlip, RandomResizedCrop


def folder(root, **options):
    return ImageFolder(root=str(root), **{"size": 16, **options})


def test_own_parts_are_used(image_root):
    data = folder(image_root({"train": 4, "val": 2, "test": 3})).load()
    assert (len(data.train), len(data.validation), len(data.test)) == (12, 6, 9)
    names = [data.source.names[index].split("/")[0] for index in range(len(data.source))]
    assert [names[i] for i in data.validation.indices] == ["val"] * 6
    assert [names[i] for i in data.test.indices] == ["test"] * 9


@pytest.mark.parametrize("other", ["val", "test"])
def test_the_only_other_part_is_the_test(image_root, other):
    data = folder(image_root({"train": 10, other: 2})).load()
    assert (len(data.train), len(data.validation), len(data.test)) == (27, 3, 6)
    assert {data.source.names[index].split("/")[0] for index in data.test.indices} == {other}


@pytest.mark.parametrize("part", ["train", "."])
def test_without_other_parts_both_are_held_out(image_root, part):
    data = folder(image_root({part: 10}), split=Split(validation=6, test=0.2)).load()
    assert (len(data.train), len(data.validation), len(data.test)) == (18, 6, 6)
    assert np.bincount(data.test.labels).tolist() == [2, 2, 2]


def test_paper_adds_the_own_validation_to_the_training(image_root):
    data = folder(image_root({"train": 4, "val": 2, "test": 3}), split=Split(protocol="paper")).load()
    assert len(data.train) == 18
    assert data.validation is None


def test_order_and_labels_are_torchvision_s(image_root):
    root = image_root({"train": 3, "val": 2})
    source = folder(root).load().source
    official = datasets.ImageFolder(str(root / "train"))
    assert [str(root / name) for name in source.names[:9]] == [path for path, _ in official.samples]
    assert source.labels[:9].tolist() == official.targets
    assert source.classes == tuple(official.classes)


def test_evaluation_sees_torchvision_s_resized_centre(image_root):
    data = folder(image_root({"train": 5}), size=16, resize=20).load()
    reference = v2.Compose([v2.PILToTensor(), v2.Resize(20, antialias=True), v2.CenterCrop(16)])
    loader = Loader(
        data.test,
        batch_size=2,
        mean=[0] * 3,
        std=[1 / 255] * 3,
        shuffle=False,
        drop_last=False,
        device=torch.device("cpu"),
    )
    for batch in loader.epoch(0):
        for image, index in zip(batch.images, batch.indices.tolist(), strict=True):
            expected = reference(Image.open(data.source.root.open(data.source.names[index])))
            assert image.allclose(expected.float(), atol=1e-3)


def test_default_training_view_is_a_random_resized_crop_of_the_original(image_root):
    dataset = folder(image_root({"train": 5}))
    crop, flip = dataset.transforms
    assert isinstance(crop, RandomResizedCrop)
    assert crop.size == 16
    assert isinstance(flip, RandomHorizontalFlip)


@pytest.mark.parametrize(
    "augment",
    [
        [],
        [RandomHorizontalFlip()],
        [RandomCrop(padding=2)],
        [RandomHorizontalFlip(), RandomResizedCrop(16)],
        [EachImage(v2.RandAugment()), RandomResizedCrop(16)],
        [EachImage(v2.RandomResizedCrop(16))],
        [RandomResizedCrop(16), EachImage(v2.TrivialAugmentWide())],
    ],
)
def test_any_chain_makes_batches_that_do_not_depend_on_the_batch(image_root, augment):
    root = image_root({"train": 6})
    views = []
    for batch_size, num_threads in ((2, 1), (4, 3)):
        data = folder(root, augment=augment, num_threads=num_threads).load()
        loader = Loader(
            data.train,
            batch_size=batch_size,
            mean=data.mean,
            std=data.std,
            transforms=data.transforms,
            shuffle=True,
            drop_last=True,
            device=torch.device("cpu"),
        )
        images = {int(i): image for b in loader.epoch(1) for i, image in zip(b.indices, b.images, strict=True)}
        views.append(images)
    assert len(views[0]) == 12  # of 13
    assert all(image.shape == (3, 16, 16) for image in views[0].values())
    assert all(image.equal(views[0][index]) for index, image in views[1].items())


def test_grey(image_root):
    data = folder(image_root({"train": 4}), channels=1).load()
    (image,) = data.train.read(np.array([0]))
    assert image.shape[0] == 1
    expected = Image.open(data.source.root.open(data.source.names[data.train.indices[0]])).convert("L")
    assert image[0].tolist() == np.asarray(expected).tolist()
    assert data.image_shape == (1, 16, 16)
    assert len(data.mean) == 1


@pytest.mark.parametrize(("size", "resize"), [(224, 256), (112, 128), (64, 73)])
def test_resize_follows_size(image_root, size, resize):
    assert folder(image_root({"train": 1}), size=size).resize == resize


def test_fingerprint_sees_names_sizes_and_split_but_not_the_augmentation(image_root):
    root = image_root({"train": 6})
    fingerprint = folder(root).load().fingerprint
    assert folder(root, augment=[], num_threads=1).load().fingerprint == fingerprint
    assert folder(root, split=Split(seed=1)).load().fingerprint != fingerprint
    assert folder(root, resize=30).load().fingerprint != fingerprint
    image = root / "train" / "cat" / "000.png"
    image.write_bytes(image.read_bytes() + b" ")
    assert folder(root).load().fingerprint != fingerprint


def png_header(width, height):
    """A PNG of a few bytes that declares any size."""

    def chunk(kind, content):
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


def encoded(kind, *, size=(30, 30), mode="RGB"):
    file = io.BytesIO()
    Image.effect_noise(size, 50).convert(mode).save(file, kind)
    return file.getvalue()


HOSTILE = {
    "empty": (b"", "cannot identify"),
    "text": (b"<!doctype html><html>not found</html>", "cannot identify"),
    "truncated": (encoded("JPEG", size=(200, 200))[:2000], "truncated"),
    "large": (png_header(8000, 8000), "at most 50,000,000 pixels are allowed, found 8000x8000"),
    "larger": (png_header(60_000, 60_000), "decompression bomb"),
    "postscript": (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\nshowpage\n", "cannot identify"),
    "sixteen bits": (encoded("PNG", mode="I;16"), "8 bits a channel, found mode I;16"),
}


@pytest.mark.parametrize("kind", sorted(HOSTILE))
def test_damaged_and_disguised_files_are_named(image_root, kind):
    content, message = HOSTILE[kind]
    root = image_root({"train": 4})
    path = root / "train" / "dog" / "001.png"
    path.write_bytes(content)
    data = folder(root).load()
    place = data.source.names.index("train/dog/001.png")
    with pytest.raises(ValueError, match=message) as error:
        data.source.read(np.array([0, place, 1]))
    assert str(path) in str(error.value)


@pytest.mark.parametrize(("kind", "mode"), [("PNG", "RGB"), ("JPEG", "CMYK"), ("GIF", "P"), ("WEBP", "RGB")])
def test_a_good_image_under_the_wrong_suffix_is_read(image_root, kind, mode):
    # ImageNet's training set has a PNG and CMYK files among its .JPEG names.
    root = image_root({"train": 4})
    (root / "train" / "dog" / "001.png").write_bytes(encoded(kind, mode=mode))
    data = folder(root).load()
    (image,) = data.source.read(np.array([data.source.names.index("train/dog/001.png")]))
    assert image.shape == (3, 30, 30)


def test_other_files_are_left_out_and_said(image_root, caplog):
    root = image_root({"train": 4})
    (root / "train" / "dog" / "notes.txt").write_text("x")
    (root / "valid").mkdir()
    with caplog.at_level(logging.WARNING):
        data = folder(root).load()
    assert len(data.source) == 12
    assert "leaves out valid" in caplog.text
    assert "left out 1 files" in caplog.text


def test_differing_classes_are_refused_at_construction(image_root):
    root = image_root({"train": 2, "val": 2})
    (root / "val" / "dog").rename(root / "val" / "dogs")
    with pytest.raises(ValueError, match=r"val must have the classes of train/: missing \['dog'\], unknown \['dogs'\]"):
        folder(root)


def test_wrong_folders_are_refused_at_construction(tmp_path, image_root):
    with pytest.raises(ValueError, match="a folder for each class, at least two"):
        folder(tmp_path)
    image_root({"val": 1})
    with pytest.raises(ValueError, match="train/ beside val/"):
        folder(tmp_path)


def test_an_empty_class_is_refused(image_root):
    root = image_root({"train": 2})
    (root / "train" / "ant").mkdir()
    with pytest.raises(ValueError, match=r"found none in .*ant"):
        folder(root).load()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"resize": 8}, "resize must be at least size, 16"),
        ({"size": 0}, "size must be at least 1"),
        ({"channels": 2}, "channels must be 1 .grey. or 3"),
        ({"num_threads": 0}, "num_threads must be at least 1"),
        ({"mean": [0.5, 0.5]}, "mean must have 1 or 3"),
    ],
)
def test_wrong_options_are_refused(image_root, options, message):
    with pytest.raises(ValueError, match=message):
        folder(image_root({"train": 2}), **options)
