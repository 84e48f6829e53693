"""What all data sets share whose images are annotated place by place."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from distill.data.archive import unpacked
from distill.data.base import Dataset
from distill.data.canvas import Canvas, Fit, sides_of
from distill.data.imagenet import IMAGENET_MEAN, IMAGENET_STD
from distill.data.root import resolve_root
from distill.data.roots import Root
from distill.data.split import Split
from distill.data.transforms.base import Transform


class AnnotatedDataset(Dataset):
    """Image files with annotations, all brought to one canvas.

    Args:
        root: the folder that holds the files, as the option of that name gives it and ``open_root`` opens it.
        num_classes: number of classes.
        size: of the canvas: height and width in pixels, or one number for both.
        fit: how images are brought to it; see :class:`~distill.data.canvas.Canvas`.
        fits: what ``fit`` may be.
        channels: 3 for colour, 1 for grey; files are converted.
        num_threads: how many images are decoded at once.
        split: who sees which images.
        augment: what training images go through, in order.
        mean: of each channel, in 0..1; ``None``: ImageNet's.
        std: of each channel, in 0..1; ``None``: ImageNet's.
    """

    def __init__(
        self,
        *,
        root: Root,
        num_classes: int,
        size: int | Sequence[int],
        fit: Fit,
        fits: Sequence[Fit],
        channels: Literal[1, 3],
        num_threads: int,
        split: Split | None,
        augment: Sequence[Transform],
        mean: Sequence[float] | None,
        std: Sequence[float] | None,
    ) -> None:
        if fit not in fits:
            raise ValueError(f"fit must be one of {', '.join(map(repr, fits))}, found {fit!r}")
        if channels not in (1, 3):
            raise ValueError(f"channels must be 1 (grey) or 3 (colour), found {channels!r}")
        if num_threads < 1:
            raise ValueError(f"num_threads must be at least 1, found {num_threads}")
        self.root = root
        self.canvas = Canvas(*sides_of(size), fit)
        self.channels = channels
        self.num_threads = num_threads
        super().__init__(
            num_classes=num_classes,
            image_shape=(channels, self.canvas.height, self.canvas.width),
            mean=mean if mean is not None else IMAGENET_MEAN[channels],
            std=std if std is not None else IMAGENET_STD[channels],
            split=split,
            augment=augment,
        )


def open_root(root: str | None, archive: str | None) -> Root:
    """Return the folder that holds the files: ``root``, or what an archive in it unpacks to.

    Raises:
        ValueError: there is no such folder or archive, or it cannot be read or unpacked.
    """
    folder = resolve_root(root)
    return folder if archive is None else unpacked(folder, archive)
