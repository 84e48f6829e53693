"""Tiny synthetic data in the formats that the data sets read."""

import gzip
import hashlib
import pickle
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from annotated_roots import (
    write_ade20k,
    write_cityscapes,
    write_coco,
    write_mask_folder,
    write_voc,
    write_voc_masks,
)
from PIL import Image
from torchvision import datasets

from distill.data.memory_source import MemorySource
from distill.data.subset import Subset


@pytest.fixture(autouse=True)
def cache(tmp_path_factory, monkeypatch):
    """A cache of the test's own."""
    folder = tmp_path_factory.mktemp("cache")
    monkeypatch.setenv("DISTILLERY_CACHE", str(folder))
    return folder


def write_idx(path, array, *, packed):
    content = bytes([0, 0, 8, array.ndim]) + np.array(array.shape, dtype=">u4").tobytes() + array.tobytes()
    path.parent.mkdir(parents=True, exist_ok=True)
    if packed:
        path.with_name(path.name + ".gz").write_bytes(gzip.compress(content, mtime=0))
    else:
        path.write_bytes(content)


@pytest.fixture
def fashion_root(tmp_path):
    """Returns a function that writes 60 + 20 images to ``<root>/<folder>``."""

    def write(folder="FashionMNIST/raw", *, packed=False):
        generator = np.random.default_rng(0)
        for part, count in (("train", 60), ("t10k", 20)):
            images = generator.integers(0, 256, (count, 28, 28), dtype=np.uint8)
            write_idx(tmp_path / folder / f"{part}-images-idx3-ubyte", images, packed=packed)
            labels = (np.arange(count) % 10).astype(np.uint8)
            write_idx(tmp_path / folder / f"{part}-labels-idx1-ubyte", labels, packed=packed)
        return tmp_path

    return write


@pytest.fixture
def cifar_root(tmp_path, monkeypatch):
    """Returns a function that writes 20 images a file and tells torchvision their MD5s."""

    def write(num_classes):
        reader = {10: datasets.CIFAR10, 100: datasets.CIFAR100}[num_classes]
        folder = tmp_path / reader.base_folder
        folder.mkdir()
        generator = np.random.default_rng(0)

        def dump(name, content):
            data = pickle.dumps(content)
            (folder / name).write_bytes(data)
            return [name, hashlib.md5(data).hexdigest()]

        def part(count):
            labels = [int(label) for label in np.arange(count) % num_classes]
            key = "labels" if num_classes == 10 else "fine_labels"
            return {"data": generator.integers(0, 256, (count, 3072), dtype=np.uint8), key: labels}

        count = 20 if num_classes == 10 else 200
        monkeypatch.setattr(reader, "train_list", [dump(name, part(count)) for name, _ in reader.train_list])
        monkeypatch.setattr(reader, "test_list", [dump(name, part(count)) for name, _ in reader.test_list])
        key = reader.meta["key"]
        name, md5 = dump(reader.meta["filename"], {key: [f"class {i}" for i in range(num_classes)]})
        monkeypatch.setattr(reader, "meta", {"filename": name, "key": key, "md5": md5})
        return tmp_path

    return write


@pytest.fixture
def image_root(tmp_path):
    """Returns a function that writes PNGs of differing sizes: ``parts`` maps a folder to images a class."""

    def write(parts, classes=("cat", "dog", "eel")) -> Path:
        generator = np.random.default_rng(0)
        for part, count in parts.items():
            for class_name in classes:
                folder = tmp_path / part / class_name
                folder.mkdir(parents=True)
                for number in range(count):
                    height, width = generator.integers(20, 60, 2)
                    pixels = generator.integers(0, 256, (height, width, 3), dtype=np.uint8)
                    Image.fromarray(pixels).save(folder / f"{number:03}.png")
        return tmp_path

    return write


@pytest.fixture
def mask_root(tmp_path):
    """``write_mask_folder`` into this test's folder."""
    return partial(write_mask_folder, tmp_path)


@pytest.fixture
def voc_masks_root(tmp_path):
    """``write_voc_masks`` into this test's folder."""
    return partial(write_voc_masks, tmp_path)


@pytest.fixture
def cityscapes_root(tmp_path):
    """``write_cityscapes`` into this test's folder."""
    return partial(write_cityscapes, tmp_path)


@pytest.fixture
def ade20k_root(tmp_path):
    """``write_ade20k`` into this test's folder."""
    return partial(write_ade20k, tmp_path)


@pytest.fixture
def voc_root(tmp_path):
    """``write_voc`` into this test's folder."""
    return partial(write_voc, tmp_path)


@pytest.fixture
def coco_root(tmp_path):
    """``write_coco`` into this test's folder."""
    return partial(write_coco, tmp_path)


@pytest.fixture
def memory_subset():
    """Returns a function that makes a subset of random images in memory."""

    def make(count=64, shape=(3, 12, 10), *, every=1, num_classes=4):
        generator = torch.Generator().manual_seed(0)
        images = torch.randint(0, 256, (count, *shape), dtype=torch.uint8, generator=generator)
        labels = np.arange(count, dtype=np.int64) % num_classes
        source = MemorySource(images, labels, [str(label) for label in range(num_classes)])
        return Subset(source, np.arange(0, count, every, dtype=np.int64))

    return make
