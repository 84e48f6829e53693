"""CIFAR-10."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from distill.data.cifar import Cifar
from distill.data.split import Split
from distill.data.transforms.base import Transform
from distill.late import datasets


class CIFAR10(Cifar):
    """50,000 and 10,000 colour 32x32 images of 10 classes (Krizhevsky 2009).

    Source: https://www.cs.toronto.edu/~kriz/cifar.html.
    Mean and std are those of the training images.

    Args:
        root: folder, a path or a URI, with ``cifar-10-batches-py/``, the unpacked python version. Environment
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
        mean: Sequence[float] = (0.4914, 0.4822, 0.4465),
        std: Sequence[float] = (0.2470, 0.2435, 0.2616),
    ) -> None:
        super().__init__(num_classes=10, root=root, download=download, split=split, augment=augment, mean=mean, std=std)

    def reader(self) -> Any:
        return datasets.CIFAR10
