"""CIFAR-100."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from distill.data.cifar import Cifar
from distill.data.split import Split
from distill.data.transforms.base import Transform
from distill.late import datasets


class CIFAR100(Cifar):
    """50,000 and 10,000 colour 32x32 images of 100 classes (Krizhevsky 2009).

    Source: https://www.cs.toronto.edu/~kriz/cifar.html.
    Mean and std are those of the recipe of Chennupati et al. 2021 (arXiv:2110.09674).

    Args:
        root: folder, a path or a URI, with ``cifar-100-python/``, the unpacked python version. Environment
            variables are expanded; default: the folder that ``DISTILLERY_DATA`` names.
        download: fetch missing files into ``root`` when loading, if it is a path.
        split: who sees which images.
        augment: default: a crop with four pixels of padding, and a mirror image half the time.
        mean: of each channel, in 0..1.
        std: of each channel, in 0..1.
    """

    def __init__(
        self,
        *,
        root: str | None = None,
        download: bool = False,
        split: Split | None = None,
        augment: Sequence[Transform] | None = None,
        mean: Sequence[float] = (129.304 / 255, 124.070 / 255, 112.434 / 255),
        std: Sequence[float] = (68.170 / 255, 65.392 / 255, 70.418 / 255),
    ) -> None:
        super().__init__(
            num_classes=100, root=root, download=download, split=split, augment=augment, mean=mean, std=std
        )

    def reader(self) -> Any:
        return datasets.CIFAR100
