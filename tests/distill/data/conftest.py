"""Tiny synthetic data in the formats that the data sets read."""

import gzip
import hashlib
import json
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
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
def paint():
    """The colour in which ``mask_root`` paints each class, so that an image tells its mask."""
    return np.array([[40, 90, 140], [220, 30, 60], [10, 200, 90]], dtype=np.uint8)


@pytest.fixture
def mask_root(tmp_path, paint):
    """Returns a function that writes images and masks of differing sizes: ``parts`` maps a folder to their number."""

    def write(parts, *, images="images", masks="masks") -> Path:
        generator = np.random.default_rng(0)
        for part, count in parts.items():
            for folder in (images, masks):
                (tmp_path / part / folder).mkdir(parents=True, exist_ok=True)
            for number in range(count):
                height, width = (int(side) for side in generator.integers(30, 60, 2))
                mask = np.zeros((height, width), dtype=np.uint8)
                mask[height // 4 : height // 2, 3 : width // 2] = 1
                mask[height // 2 :, width // 3 :] = 2
                Image.fromarray(paint[mask]).save(tmp_path / part / images / f"{number:03}.png")
                Image.fromarray(mask).save(tmp_path / part / masks / f"{number:03}.png")
        return tmp_path

    return write


class PaintedObjects:
    """Images on black with one object or none in each third, and their boxes: left, top, right, bottom from 0."""

    names = ("ant", "bee", "cow")
    colours = ((200, 0, 0), (0, 200, 0), (0, 0, 200))

    def __init__(self, seed=0):
        self._generator = np.random.default_rng(seed)

    def draw(self):
        """Returns the pixels of the next image, and name and box of each object."""
        height, width = (int(side) for side in self._generator.integers(30, 60, 2))
        pixels = np.zeros((height, width, 3), dtype=np.uint8)
        objects = []
        for place in range(3):
            left, top = (int(value) for value in self._generator.integers(0, 5, 2))
            kind, present = (int(value) for value in self._generator.integers(0, [3, 4]))
            left += place * (width // 3)
            right, bottom = left + 2 + kind, top + 9 + place
            if present:
                pixels[top:bottom, left:right] = self.colours[kind]
                objects.append((self.names[kind], (left, top, right, bottom)))
        return pixels, objects


@pytest.fixture
def painted_objects():
    """Draws images with objects."""
    return PaintedObjects()


@pytest.fixture
def voc_root(tmp_path, painted_objects):
    """Returns a function that writes VOC's folders: ``lists`` maps a list to its number of images."""

    def write(lists, prefix="") -> Path:
        base = tmp_path / prefix
        for folder in ("JPEGImages", "Annotations", "ImageSets/Main"):
            (base / folder).mkdir(parents=True, exist_ok=True)
        for name, count in lists.items():
            names = [f"{name}_{number:03}" for number in range(count)]
            (base / "ImageSets" / "Main" / f"{name}.txt").write_text("".join(f"{each}\n" for each in names))
            for each in names:
                pixels, objects = painted_objects.draw()
                Image.fromarray(pixels).save(base / "JPEGImages" / f"{each}.jpg", "PNG")
                (base / "Annotations" / f"{each}.xml").write_text(voc_xml(pixels.shape, objects))
        return tmp_path

    return write


def voc_xml(shape, objects):
    """Returns VOC's XML, whose pixels are numbered from 1."""
    height, width = shape[:2]
    written = "".join(
        f"<object><name>{name}</name><difficult>{int(name == 'cow')}</difficult><bndbox><xmin>{box[0] + 1}</xmin>"
        f"<ymin>{box[1] + 1}</ymin><xmax>{box[2]}</xmax><ymax>{box[3]}</ymax></bndbox></object>"
        for name, box in objects
    )
    size = f"<size><width>{width}</width><height>{height}</height><depth>3</depth></size>"
    return f"<annotation>{size}{written}</annotation>"


@pytest.fixture
def coco_root(tmp_path, painted_objects):
    """Returns a function that writes COCO's files: ``parts`` maps a part to its number of images."""

    def write(parts, *, file="annotations/instances_{}2017.json", folder="{}2017") -> Path:
        for part, count in parts.items():
            images, annotations = [], []
            where = tmp_path / folder.format(part)
            where.mkdir(parents=True, exist_ok=True)
            for number in range(count):
                pixels, objects = painted_objects.draw()
                Image.fromarray(pixels).save(where / f"{number:03}.png")
                height, width = pixels.shape[:2]
                image = {"id": 900 - number, "file_name": f"{number:03}.png", "width": width, "height": height}
                images.append(image)
                for name, (left, top, right, bottom) in objects:
                    annotations.append(
                        {
                            "id": len(annotations),
                            "image_id": image["id"],
                            "category_id": {"ant": 90, "bee": 7, "cow": 21}[name],
                            "bbox": [left, top, right - left, bottom - top],
                            "iscrowd": int(name == "cow"),
                            "segmentation": [[1, 2, 3, 4, 5, 6]],
                        }
                    )
            categories = [{"id": 90, "name": "ant"}, {"id": 7, "name": "bee"}, {"id": 21, "name": "cow"}]
            path = tmp_path / file.format(part)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(json.dumps({"images": images, "annotations": annotations, "categories": categories}))
        return tmp_path

    return write


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
