"""Anyone's images: a folder for each class."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Sequence
from typing import Literal

import numpy as np

from distill.data.base import Dataset
from distill.data.decoding import SUFFIXES, is_image
from distill.data.file_source import FileSource
from distill.data.imagenet import IMAGENET_MEAN, IMAGENET_STD
from distill.data.root import resolve_root
from distill.data.roots import ListedFile, Root
from distill.data.split import Split
from distill.data.transforms import RandomHorizontalFlip, RandomResizedCrop
from distill.data.transforms.base import Transform

_PARTS = ("train", "val", "test")

_logger = logging.getLogger(__name__)


class ImageFolder(Dataset):
    """Image files in a folder for each class, decoded when read; the classes are the folders' sorted names.

    What ``root`` holds decides who sees which images:

    ======================== ============================================================================
    ``train/ val/ test/``    those; ``split.validation`` and ``split.test`` are not used
    ``train/`` and one other the other is the official test part (for ImageNet that is ``val/``), validation
                             is held out of ``train/``
    ``train/``, or classes   validation and test are held out
    ======================== ============================================================================

    Evaluation resizes the shorter side to ``resize`` and cuts out the middle, in training too unless ``augment``
    has a RandomResizedCrop; transforms before that see images in their own size.

    Args:
        root: the folder, a path or a URI, from which its images are copied when loading. Environment variables are
            expanded; default: the folder that ``DISTILLERY_DATA`` names.
        size: side of the images as the models see them, in pixels.
        resize: shorter side before the middle is cut out; default: ``size * 256 / 224``.
        channels: 3 for colour, 1 for grey; files are converted.
        num_threads: how many images are decoded at once.
        split: who sees which images.
        augment: default: a random resized crop, and a mirror image half the time.
        mean: of each channel, in 0..1; default: ImageNet's.
        std: of each channel, in 0..1; default: ImageNet's.
    """

    def __init__(
        self,
        *,
        root: str | None = None,
        size: int = 224,
        resize: int | None = None,
        channels: Literal[1, 3] = 3,
        num_threads: int = 4,
        split: Split | None = None,
        augment: Sequence[Transform] | None = None,
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
    ) -> None:
        if channels not in (1, 3):
            raise ValueError(f"channels must be 1 (grey) or 3 (colour), found {channels!r}")
        if size < 1:
            raise ValueError(f"size must be at least 1 pixel, found {size}")
        if num_threads < 1:
            raise ValueError(f"num_threads must be at least 1, found {num_threads}")
        self.resize = resize if resize is not None else round(size * 256 / 224)
        if self.resize < size:
            raise ValueError(f"resize must be at least size, {size} pixels, found {self.resize}")
        self.root = resolve_root(root)
        self.num_threads = num_threads
        self.parts = _find_parts(self.root)
        self.classes = _find_classes(self.root, self.parts[0])
        for part in self.parts[1:]:
            _check_classes(self.root, part, self.classes)
        super().__init__(
            num_classes=len(self.classes),
            image_shape=(channels, size, size),
            mean=mean if mean is not None else IMAGENET_MEAN[channels],
            std=std if std is not None else IMAGENET_STD[channels],
            split=split,
            augment=augment if augment is not None else [RandomResizedCrop(size), RandomHorizontalFlip()],
        )

    def read_source(self) -> FileSource:
        files: list[ListedFile] = []
        labels: list[int] = []
        sizes: list[int] = []
        for part in self.parts:
            before = len(files)
            for label, found in enumerate(_list_images(self.root, part, self.classes)):
                files += found
                labels += [label] * len(found)
            sizes.append(len(files) - before)
        return FileSource(
            self.root,
            files,
            np.asarray(labels, dtype=np.int64),
            self.classes,
            num_validation=sizes[1] if len(sizes) == 3 else 0,
            num_test=sizes[-1] if len(sizes) > 1 else 0,
            channels=self.image_shape[0],  # type: ignore[arg-type]
            size=self.image_shape[1],
            resize=self.resize,
            num_threads=self.num_threads,
        )


def _find_parts(root: Root) -> list[str]:
    """Return the folders of the parts in ``root``, in order; ``[""]`` where ``root`` holds the classes itself."""
    folders = root.folders()
    parts = [part for part in _PARTS if part in folders]
    if not parts:
        return [""]
    if parts[0] != "train":
        raise ValueError(f"root must hold train/ beside {parts[0]}/, found none in {root.location()}")
    others = [name for name in folders if name not in _PARTS]
    if others:
        _logger.warning(
            "ImageFolder reads train/, val/ and test/ of %s and leaves out %s", root.location(), ", ".join(others)
        )
    return parts


def _find_classes(root: Root, part: str) -> tuple[str, ...]:
    """Return the sorted names of the class folders of a part."""
    classes = tuple(name for name in root.folders(part) if not name.startswith("."))
    if len(classes) < 2:
        raise ValueError(
            f"root must hold a folder for each class, at least two (or train/ val/ test/ with them), found "
            f"{list(classes) or 'none'} in {root.location(part)}"
        )
    return classes


def _check_classes(root: Root, part: str, classes: tuple[str, ...]) -> None:
    """Raise ``ValueError`` unless a part has the classes of ``train/``."""
    found = set(_find_classes(root, part))
    if found != set(classes):
        missing = sorted(set(classes) - found)
        extra = sorted(found - set(classes))
        raise ValueError(
            f"{root.location(part)} must have the classes of train/: missing {missing[:5] or 'none'}, "
            f"unknown {extra[:5] or 'none'}"
        )


def _list_images(root: Root, part: str, classes: Sequence[str]) -> list[list[ListedFile]]:
    """Return the image files below each class folder of a part, sorted by name.

    Raises:
        ValueError: a class has none.
    """
    prefix = f"{part}/" if part else ""
    images: dict[str, list[ListedFile]] = {name: [] for name in classes}
    skipped = Counter[str]()
    for file in root.files(part):
        class_name, separator, _ = file.name.removeprefix(prefix).partition("/")
        if not separator or class_name not in images:
            continue
        if is_image(file.name):
            images[class_name].append(file)
        else:
            skipped[class_name] += 1
    for class_name, found in images.items():
        location = root.location(f"{prefix}{class_name}")
        if not found:
            raise ValueError(f"each class folder must hold an image ({', '.join(SUFFIXES)}), found none in {location}")
        if skipped[class_name]:
            _logger.warning("left out %d files of %s that are no images by their suffix", skipped[class_name], location)
    return [sorted(images[class_name]) for class_name in classes]
