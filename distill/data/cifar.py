"""What CIFAR-10 and CIFAR-100 share: the python archive of pickles, checked by MD5 before it is opened."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from distill.data.base import Dataset
from distill.data.memory_source import MemorySource
from distill.data.root import resolve_root
from distill.data.roots import ListedFile
from distill.data.split import Split
from distill.data.transforms import RandomCrop, RandomHorizontalFlip
from distill.data.transforms.base import Transform
from distill.late import datasets

_NUM_TRAIN = 50_000
_NUM_TEST = 10_000


class Cifar(Dataset):
    """50,000 and 10,000 colour 32x32 images (Krizhevsky 2009), read through torchvision.

    Args:
        num_classes: number of classes.
        root: folder with the unpacked python version, a path or a URI; ``None``: the folder that ``DISTILLERY_DATA``
            names.
        download: fetch missing files into ``root`` when loading, if it is a path.
        split: who sees which images.
        augment: default: a crop with four pixels of padding, and a mirror image half the time.
        mean: of each channel, in 0..1.
        std: of each channel, in 0..1.
    """

    def __init__(
        self,
        *,
        num_classes: int,
        root: str | None,
        download: bool,
        split: Split | None,
        augment: Sequence[Transform] | None,
        mean: Sequence[float],
        std: Sequence[float],
    ) -> None:
        self.root = resolve_root(root)
        self.download = download and self.root.downloads_to is not None
        super().__init__(
            num_classes=num_classes,
            image_shape=(3, 32, 32),
            mean=mean,
            std=std,
            split=split,
            augment=augment if augment is not None else [RandomCrop(padding=4), RandomHorizontalFlip()],
        )
        if not self.download:
            self._find_files()
        self.split.check(_NUM_TRAIN + _NUM_TEST, num_test=_NUM_TEST)

    @abstractmethod
    def reader(self) -> Any:
        """Return torchvision's class of this data set."""

    def read_source(self) -> MemorySource:
        folder = str(self.root.downloads_to if self.download else self.root.fetch(self._find_files()))
        try:
            train = self.reader()(folder, train=True, download=self.download)
            test = self.reader()(folder, train=False)
        except RuntimeError as error:
            damaged = [
                name
                for name, md5 in self._digests().items()
                if not datasets.utils.check_integrity(f"{folder}/{name}", md5)
            ]
            raise ValueError(
                f"the files of {type(self).__name__} must have their published MD5, found others: "
                f"{', '.join(self.root.location(name) for name in damaged)}; fetch them again"
            ) from error
        pixels = torch.from_numpy(np.concatenate([train.data, test.data])).permute(0, 3, 1, 2)
        labels = np.asarray(train.targets + test.targets, dtype=np.int64)
        return MemorySource(pixels, labels, train.classes, num_test=len(test.targets))

    def _find_files(self) -> list[ListedFile]:
        """Return all files.

        Raises:
            ValueError: one is missing.
        """
        found = {name: self.root.find(name) for name in self._digests()}
        missing = [name for name, file in found.items() if file is None]
        if missing:
            raise ValueError(
                f"root must hold {missing[0]} (unpack {self.reader().filename} there), found no such file in "
                f"{self.root.location()}; give another root, or a path with download: true to fetch the data"
            )
        return [file for file in found.values() if file is not None]

    def _digests(self) -> dict[str, str]:
        """Return the MD5 of each file by its name."""
        reader = self.reader()
        entries = [*reader.train_list, *reader.test_list, (reader.meta["filename"], reader.meta["md5"])]
        return {f"{reader.base_folder}/{name}": md5 for name, md5 in entries}
