"""Fashion-MNIST."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torchvision import datasets

from distill.data.base import Dataset
from distill.data.grey import add_channels, check_channels
from distill.data.idx import read_idx, read_idx_shape
from distill.data.memory_source import MemorySource
from distill.data.root import resolve_root
from distill.data.split import Split
from distill.data.transforms import RandomCrop, RandomHorizontalFlip
from distill.data.transforms.base import Transform

_SIDE = 28
_PARTS = ("train", "t10k")


class FashionMNIST(Dataset):
    """60,000 and 10,000 grey 28x28 images of articles of clothing, 10 classes (Xiao et al. 2017, arXiv:1708.07747).

    Args:
        root: folder with ``FashionMNIST/raw/train-images-idx3-ubyte`` and the three other files, or the same files as
            ``.gz``, there, in ``FashionMNIST/`` or in ``root`` itself; nothing is written. Environment variables are
            expanded; default: the folder that ``DISTILLERY_DATA`` names.
        download: fetch missing files into ``root`` when loading.
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
        self.download = download
        super().__init__(
            num_classes=10,
            image_shape=(channels, _SIDE, _SIDE),
            mean=mean,
            std=std,
            split=split,
            augment=augment if augment is not None else [RandomCrop(padding=2), RandomHorizontalFlip()],
        )
        if not download or self._is_complete():
            train, test = (read_idx_shape(self._file(part, "labels-idx1"), num_dims=1)[0] for part in _PARTS)
            for part in _PARTS:
                self._file(part, "images-idx3")
            self.split.check(train + test, num_test=test)

    def read_source(self) -> MemorySource:
        if self.download and not self._is_complete():
            datasets.FashionMNIST(str(self.root), download=True)
        images = [self._read_images(part) for part in _PARTS]
        labels = [read_idx(self._file(part, "labels-idx1"), num_dims=1) for part in _PARTS]
        for part, some_images, some_labels in zip(_PARTS, images, labels, strict=True):
            if len(some_images) != len(some_labels):
                raise ValueError(
                    f"the {part} files in {self.root} must have one label an image, found {len(some_images):,} images "
                    f"and {len(some_labels):,} labels: files of different data sets?"
                )
        pixels = torch.from_numpy(np.concatenate(images))
        return MemorySource(
            add_channels(pixels, self.image_shape[0]),
            np.concatenate(labels).astype(np.int64),
            datasets.FashionMNIST.classes,
            num_test=len(labels[1]),
        )

    def _read_images(self, part: str) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
        """Read ``[image, 28, 28]`` of one part."""
        path = self._file(part, "images-idx3")
        images = read_idx(path, num_dims=3)
        if images.shape[1:] != (_SIDE, _SIDE):
            raise ValueError(f"{path} must hold images of {_SIDE}x{_SIDE} pixels, found {images.shape[1:]}")
        return images

    def _file(self, part: str, kind: str) -> Path:
        """Return where a file is, unpacked or packed.

        Raises:
            ValueError: it is nowhere.
        """
        name = f"{part}-{kind}-ubyte"
        path = self._find(name)
        if path is None:
            raise ValueError(
                f"root must hold FashionMNIST/raw/{name} (or the same as .gz, there, in FashionMNIST/ or in root "
                f"itself), found no such file in {self.root}; give another root, or download: true to fetch the data"
            )
        return path

    def _find(self, name: str) -> Path | None:
        """Return the first place that has a file, or ``None``."""
        folders = (self.root / "FashionMNIST" / "raw", self.root / "FashionMNIST", self.root)
        candidates = (folder / file for folder in folders for file in (name, f"{name}.gz"))
        return next((path for path in candidates if path.is_file()), None)

    def _is_complete(self) -> bool:
        """Whether all four files are there."""
        return all(self._find(f"{part}-{kind}-ubyte") for part in _PARTS for kind in ("images-idx3", "labels-idx1"))
