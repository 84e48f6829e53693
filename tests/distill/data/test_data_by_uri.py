"""What every data set with a folder promises where that folder is behind a URI."""

import shutil

import fsspec
import numpy as np
import pytest
import torch

import distill.data
from distill.data import FashionMNIST, ImageFolder
from distill.data.roots.remote import RemoteRoot

WRITE = {
    "ADE20K": lambda request: request.getfixturevalue("ade20k_root")({"training": 8, "validation": 2}),
    "CIFAR10": lambda request: request.getfixturevalue("cifar_root")(10),
    "CIFAR100": lambda request: request.getfixturevalue("cifar_root")(100),
    "COCODetection": lambda request: request.getfixturevalue("coco_root")({"train": 8, "val": 2}),
    "Cityscapes": lambda request: request.getfixturevalue("cityscapes_root")({"train": 4, "val": 1}),
    "FashionMNIST": lambda request: request.getfixturevalue("fashion_root")(packed=True),
    "ImageFolder": lambda request: request.getfixturevalue("image_root")({"train": 8, "val": 2}),
    "MaskFolder": lambda request: request.getfixturevalue("mask_root")({"train": 8, "val": 2}),
    "VOCDetection": lambda request: request.getfixturevalue("voc_root")({"train": 8, "val": 2}, "VOCdevkit/VOC2007"),
    "VOCSegmentation": lambda request: request.getfixturevalue("voc_masks_root")({"train": 8, "val": 2}),
}
OPTIONS = {"MaskFolder": {"classes": ["ground", "cell", "border"]}}
LOSSES = {
    "ADE20K": (
        "ADEChallengeData2016/annotations/validation",
        "root must hold annotations/training/ and annotations",
    ),
    "Cityscapes": ("gtFine/val", "root must hold gtFine/val/, found none in"),
    "VOCSegmentation": ("VOCdevkit/VOC2012/SegmentationClass", "root must hold SegmentationClass/, itself or in VOC20"),
    "COCODetection": ("annotations", "root must hold annotations/instances_train2017.json or train/_annotations.coco"),
    "ImageFolder": ("val/dog", r"val must have the classes of train/: missing \['dog'\]"),
    "VOCDetection": ("VOCdevkit/VOC2007/Annotations", r"root must hold Annotations/, itself or in VOC2007/"),
    "MaskFolder": ("val/masks", r"val must hold masks/ beside images/, found \['images'\]"),
}
"""What can be lost, and what is said; of the others it is any file."""


def construct(name, root, **options):
    return getattr(distill.data, name)(root=str(root), **OPTIONS.get(name, {}), **options)


def test_every_data_set_with_a_folder_is_tried():
    assert set(WRITE) == set(distill.data.__all__) - {"DigitScenes", "Digits"}


@pytest.fixture(params=sorted(WRITE))
def named(request):
    """Name of a data set, and a folder with its files."""
    return request.param, WRITE[request.param](request)


@pytest.fixture
def memory():
    """Returns a function that copies a folder into memory, and its URI."""
    system = fsspec.filesystem("memory")

    def upload(folder):
        system.put(str(folder), "/by-uri", recursive=True)
        return "memory://by-uri"

    yield upload
    if system.exists("/by-uri"):
        system.rm("/by-uri", recursive=True)


def copied(cache):
    return sorted(path.name for path in cache.rglob("*") if path.is_file() and not path.name.endswith(".lock"))


@pytest.mark.parametrize("scheme", ["file", "local", "memory"])
def test_images_and_fingerprint_are_those_of_the_path(named, scheme, memory, tmp_path):
    name, root = named
    uri = memory(root) if scheme == "memory" else f"{scheme}://{root}"
    by_path, by_uri = construct(name, root).load(), construct(name, uri).load()
    assert by_uri.fingerprint == by_path.fingerprint
    everything = np.arange(len(by_path.source))
    for one, other in zip(by_path.source.read(everything), by_uri.source.read(everything), strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize("scheme", ["local", "memory"])
def test_annotations_are_those_of_the_path(named, scheme, memory):
    name, root = named
    dataset = construct(name, root)
    if dataset.annotation is None:
        return
    uri = memory(root) if scheme == "memory" else f"{scheme}://{root}"
    remote = construct(name, uri)
    sources = [dataset.load().source, remote.survey().source, remote.load().source]
    samples = [source.read_samples(np.arange(len(source)), lambda sample, place: sample) for source in sources]
    assert all(len(some) == len(sources[0]) for some in samples)
    for one, *others in zip(*samples, strict=True):
        for other in others:
            assert repr(vars(other.annotation)) == repr(vars(one.annotation))


def test_only_what_it_reads_is_copied_and_only_when_loaded(named, cache):
    name, root = named
    (root / "notes.txt").write_text("x")
    files = [path for path in root.rglob("*") if path.is_file() and path.name != "notes.txt"]
    names = {path.name for path in files if "ImageSets" not in path.parts}  # lists are read where they are
    dataset = construct(name, f"local://{root}")
    assert copied(cache) == []
    dataset.load()
    assert set(copied(cache)) == names
    assert all(path.is_relative_to(cache / "data") for path in cache.rglob("*/*"))


def test_missing_files_are_named_at_construction(named):
    name, root = named
    if name in LOSSES:
        lost, message = LOSSES[name]
        shutil.rmtree(root / lost)
    else:
        lost = next(path for path in sorted(root.rglob("*")) if path.is_file())
        lost.unlink()
        message = f"root must hold .*{lost.name.removesuffix('.gz')}.* in local://{root}; "
    for download in [{}] if name in LOSSES else [{}, {"download": True}]:
        with pytest.raises(ValueError, match=message):
            construct(name, f"local://{root}", **download)


def test_a_second_load_copies_nothing(named, monkeypatch):
    name, root = named
    dataset = construct(name, f"local://{root}")
    dataset.load()

    def refuse(*_):
        raise AssertionError

    monkeypatch.setattr(RemoteRoot, "_chunks", refuse)
    dataset.load()


def test_a_changed_remote_is_copied_anew(fashion_root):
    root = fashion_root()
    dataset = FashionMNIST(root=f"local://{root}")
    before = dataset.load()
    images = root / "FashionMNIST" / "raw" / "t10k-images-idx3-ubyte"
    images.write_bytes(images.read_bytes()[:-1] + b"\x07")
    after = dataset.load()
    assert after.fingerprint != before.fingerprint
    assert after.fingerprint == FashionMNIST(root=str(root)).load().fingerprint


def test_images_that_came_and_went_are_seen(image_root):
    root = image_root({"train": 6})
    dataset = ImageFolder(root=f"local://{root}", size=16)
    dataset.load()
    (root / "train" / "cat" / "000.png").rename(root / "train" / "dog" / "999.png")
    data = dataset.load()
    assert data.source.names == ImageFolder(root=str(root), size=16).load().source.names
    assert data.fingerprint == ImageFolder(root=str(root), size=16).load().fingerprint
    assert len(data.source.read(np.arange(18))) == 18


def test_a_survey_counts_and_reads_images_where_they_are(image_root, cache):
    root = image_root({"train": 6, "val": 2})
    data = ImageFolder(root=f"local://{root}", size=16).survey()
    loaded = ImageFolder(root=str(root), size=16).load()
    assert (len(data.train), len(data.test)) == (len(loaded.train), len(loaded.test))
    assert data.train.read(np.array([3]))[0].equal(loaded.train.read(np.array([3]))[0])
    assert copied(cache) == []


def test_a_damaged_image_is_named_where_it_is_read(image_root, cache):
    root = image_root({"train": 4})
    (root / "train" / "dog" / "001.png").write_bytes(b"no image")
    dataset = ImageFolder(root=f"local://{root}", size=16)
    with pytest.raises(ValueError, match=f"cannot read image local://{root}/train/dog/001.png"):
        dataset.survey().source.read(np.arange(12))
    with pytest.raises(ValueError, match=f"cannot read image {cache}.*train/dog/001.png"):
        dataset.load().source.read(np.arange(12))


def test_the_root_may_come_by_the_environment_variable(fashion_root, monkeypatch):
    monkeypatch.setenv("DISTILLERY_DATA", f"local://{fashion_root()}")
    assert len(FashionMNIST().load().source) == 80
