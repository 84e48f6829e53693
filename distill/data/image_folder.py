"""Anyone's images: a folder for each class."""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import numpy as np

from distill.data.base import Dataset
from distill.data.file_source import FileSource
from distill.data.root import resolve_root
from distill.data.split import Split
from distill.data.transforms import RandomHorizontalFlip, RandomResizedCrop
from distill.data.transforms.base import Transform

_SUFFIXES = (".bmp", ".gif", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp")
_PARTS = ("train", "val", "test")
_MEAN = {1: (0.449,), 3: (0.485, 0.456, 0.406)}
_STD = {1: (0.226,), 3: (0.229, 0.224, 0.225)}

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
        root: the folder. Environment variables are expanded; default: the folder that ``DISTILLERY_DATA`` names.
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
        self.classes = _find_classes(self.root / self.parts[0])
        for part in self.parts[1:]:
            _check_classes(self.root, part, self.classes)
        super().__init__(
            num_classes=len(self.classes),
            image_shape=(channels, size, size),
            mean=mean if mean is not None else _MEAN[channels],
            std=std if std is not None else _STD[channels],
            split=split,
            augment=augment if augment is not None else [RandomResizedCrop(size), RandomHorizontalFlip()],
        )

    def read_source(self) -> FileSource:
        names: list[str] = []
        labels: list[int] = []
        sizes: list[int] = []
        for part in self.parts:
            before = len(names)
            for label, class_name in enumerate(self.classes):
                found = _list_images(self.root, Path(part) / class_name)
                names += found
                labels += [label] * len(found)
            sizes.append(len(names) - before)
        return FileSource(
            self.root,
            names,
            np.asarray(labels, dtype=np.int64),
            self.classes,
            num_validation=sizes[1] if len(sizes) == 3 else 0,
            num_test=sizes[-1] if len(sizes) > 1 else 0,
            channels=self.image_shape[0],  # type: ignore[arg-type]
            size=self.image_shape[1],
            resize=self.resize,
            num_threads=self.num_threads,
        )


def _find_parts(root: Path) -> list[str]:
    """Return the folders of the parts below ``root``, in order; ``["."]`` where ``root`` holds the classes itself."""
    parts = [part for part in _PARTS if (root / part).is_dir()]
    if not parts:
        return ["."]
    if parts[0] != "train":
        raise ValueError(f"root must hold train/ beside {parts[0]}/, found none in {root}")
    others = sorted(path.name for path in root.iterdir() if path.is_dir() and path.name not in _PARTS)
    if others:
        _logger.warning("ImageFolder reads train/, val/ and test/ of %s and leaves out %s", root, ", ".join(others))
    return parts


def _find_classes(folder: Path) -> tuple[str, ...]:
    """Return the sorted names of the class folders."""
    with os.scandir(folder) as entries:
        classes = sorted(entry.name for entry in entries if entry.is_dir() and not entry.name.startswith("."))
    if len(classes) < 2:
        raise ValueError(
            f"root must hold a folder for each class, at least two (or train/ val/ test/ with them), found "
            f"{classes or 'none'} in {folder}"
        )
    return tuple(classes)


def _check_classes(root: Path, part: str, classes: tuple[str, ...]) -> None:
    """Raise ``ValueError`` unless a part has the classes of ``train/``."""
    found = set(_find_classes(root / part))
    if found != set(classes):
        missing = sorted(set(classes) - found)
        extra = sorted(found - set(classes))
        raise ValueError(
            f"{root / part} must have the classes of train/: missing {missing[:5] or 'none'}, "
            f"unknown {extra[:5] or 'none'}"
        )


def _list_images(root: Path, folder: Path) -> list[str]:
    """Return the image files below a class folder, sorted, relative to ``root``.

    Raises:
        ValueError: there is none.
    """
    names: list[str] = []
    skipped = 0
    for directory, _, files in os.walk(root / folder, followlinks=True):
        relative = Path(directory).relative_to(root).as_posix()
        images = [name for name in files if name.lower().endswith(_SUFFIXES) and name[0] != "."]
        names += [f"{relative}/{name}" for name in images]
        skipped += len(files) - len(images)
    if not names:
        raise ValueError(
            f"each class folder must hold an image ({', '.join(_SUFFIXES)}), found none in {root / folder}"
        )
    if skipped:
        _logger.warning("left out %d files of %s that are no images by their suffix", skipped, root / folder)
    return sorted(names)
