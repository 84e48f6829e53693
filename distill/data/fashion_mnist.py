"""Fashion-MNIST."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import numpy as np
import torch

from distill.data.base import Dataset
from distill.data.grey import add_channels, check_channels
from distill.data.idx import read_idx, read_idx_shape
from distill.data.memory_source import MemorySource
from distill.data.root import resolve_root
from distill.data.roots import ListedFile
from distill.data.split import Split
from distill.data.transforms import RandomCrop, RandomHorizontalFlip
from distill.data.transforms.base import Transform
from distill.late import datasets

_SIDE = 28
_PARTS = ("train", "t10k")
_FILES = tuple(f"{part}-{kind}-ubyte" for part in _PARTS for kind in ("images-idx3", "labels-idx1"))
_FOLDERS = ("FashionMNIST/raw/", "FashionMNIST/", "")


class FashionMNIST(Dataset):
    """60,000 and 10,000 grey 28x28 images of articles of clothing, 10 classes (Xiao et al. 2017, arXiv:1708.07747).

    Args:
        root: folder, a path or a URI, with ``FashionMNIST/raw/train-images-idx3-ubyte`` and the three other files, or
            the same files as ``.gz``, there, in ``FashionMNIST/`` or in ``root`` itself; nothing is written to it.
            Environment variables are expanded; default: the folder that ``DISTILLERY_DATA`` names.
        download: fetch missing files into ``root`` when loading, if it is a path.
        channels: 1, or 3 to repeat the grey channel.
        split: who sees which images.
        augment: default: a crop with two pixels of padding, and a mirror image half the time.
        mean: of a channel, in 0..1.
        std: likewise.
    """

    def __init__(
        self,
        *,
        root: str | None = None,
        download: bool = False,
        channels: Literal[1, 3] = 1,
        split: Split | None = None,
        augment: Sequence[Transform] | None = None,
        mean: Sequence[float] = (0.286,),
        std: Sequence[float] = (0.353,),
    ) -> None:
        check_channels(channels)
        self.root = resolve_root(root)
        self.download = download and self.root.downloads_to is not None
        super().__init__(
            num_classes=10,
            image_shape=(channels, _SIDE, _SIDE),
            mean=mean,
            std=std,
            split=split,
            augment=augment if augment is not None else [RandomCrop(padding=2), RandomHorizontalFlip()],
        )
        if not self.download or self._is_complete():
            files = self._find_files()
            train, test = (self._num_labels(files[f"{part}-labels-idx1-ubyte"]) for part in _PARTS)
            self.split.check(train + test, num_test=test)

    def read_source(self) -> MemorySource:
        if self.download and not self._is_complete():
            datasets.FashionMNIST(str(self.root.downloads_to), download=True)
        files = self._find_files()
        folder = self.root.fetch(list(files.values()))
        images = [_read_images(folder / files[f"{part}-images-idx3-ubyte"].name) for part in _PARTS]
        labels = [read_idx(folder / files[f"{part}-labels-idx1-ubyte"].name, num_dims=1) for part in _PARTS]
        for part, some_images, some_labels in zip(_PARTS, images, labels, strict=True):
            if len(some_images) != len(some_labels):
                raise ValueError(
                    f"the {part} files in {self.root.location()} must have one label an image, found "
                    f"{len(some_images):,} images and {len(some_labels):,} labels: files of different data sets?"
                )
        pixels = torch.from_numpy(np.concatenate(images))
        return MemorySource(
            add_channels(pixels, self.image_shape[0]),
            np.concatenate(labels).astype(np.int64),
            datasets.FashionMNIST.classes,
            num_test=len(labels[1]),
        )

    def _num_labels(self, file: ListedFile) -> int:
        """Return how many labels a file declares."""
        with self.root.open(file.name) as stream:
            return read_idx_shape(stream, self.root.location(file.name), num_dims=1)[0]

    def _find_files(self) -> dict[str, ListedFile]:
        """Return the four files, unpacked or packed, by their official names.

        Raises:
            ValueError: one is nowhere.
        """
        found = {name: self._find(name) for name in _FILES}
        missing = [name for name, file in found.items() if file is None]
        if missing:
            raise ValueError(
                f"root must hold FashionMNIST/raw/{', '.join(missing)} (or the same as .gz, there, in FashionMNIST/ or "
                f"in root itself), found no such file in {self.root.location()}; give another root, or a path with "
                "download: true to fetch the data"
            )
        return {name: file for name, file in found.items() if file is not None}

    def _is_complete(self) -> bool:
        """Whether all four files are there."""
        return all(self._find(name) for name in _FILES)

    def _find(self, name: str) -> ListedFile | None:
        """Return a file in the first place that has it, or ``None``."""
        return self.root.find(*(f"{folder}{file}" for folder in _FOLDERS for file in (name, f"{name}.gz")))


def _read_images(path: Path) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
    """Read ``[image, 28, 28]`` of one part."""
    images = read_idx(path, num_dims=3)
    if images.shape[1:] != (_SIDE, _SIDE):
        raise ValueError(f"{path} must hold images of {_SIDE}x{_SIDE} pixels, found {images.shape[1:]}")
    return images
