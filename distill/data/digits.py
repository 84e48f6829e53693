"""scikit-learn's handwritten digits: real data that come with an installed package."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
import torch

from distill.data.base import Dataset
from distill.data.grey import add_channels, check_channels
from distill.data.memory_source import MemorySource
from distill.data.split import Split
from distill.data.transforms import RandomCrop
from distill.data.transforms.base import Transform
from distill.late import v2

_NUM_IMAGES = 1797
_SIDE = 8
_NUM_LEVELS = 16


class Digits(Dataset):
    """1,797 grey 8x8 images of handwritten digits, 10 classes, no official test part, no download.

    Source: Alpaydin and Kaynak 1998, https://archive.ics.uci.edu/dataset/80 (its test part), by ``load_digits``.

    Args:
        size: resize to this side in pixels (bilinear); ``None`` keeps 8.
        channels: 1, or 3 to repeat the grey channel.
        split: who sees which images.
        augment: default: a crop with one pixel of padding for each 8 of the side (a mirrored digit is another sign).
        mean: of a channel, in 0..1; default: measured over all 8x8 images.
        std: likewise.
    """

    def __init__(
        self,
        *,
        size: int | None = None,
        channels: Literal[1, 3] = 1,
        split: Split | None = None,
        augment: Sequence[Transform] | None = None,
        mean: Sequence[float] = (0.30531,),
        std: Sequence[float] = (0.37589,),
    ) -> None:
        if size is not None and size < _SIDE:
            raise ValueError(f"size must be at least {_SIDE} pixels, the images' own side, found {size}")
        check_channels(channels)
        side = size if size is not None else _SIDE
        super().__init__(
            num_classes=10,
            image_shape=(channels, side, side),
            mean=mean,
            std=std,
            split=split,
            augment=augment if augment is not None else [RandomCrop(padding=side // _SIDE)],
        )
        self.split.check(_NUM_IMAGES)

    def read_source(self) -> MemorySource:
        from sklearn.datasets import load_digits

        digits = load_digits()
        images = torch.from_numpy(np.rint(digits.images * (255 / _NUM_LEVELS)).astype(np.uint8))
        images = add_channels(images, self.image_shape[0])
        if self.image_shape[1] != _SIDE:
            images = v2.functional.resize(images, list(self.image_shape[1:]), antialias=True)
        return MemorySource(images, digits.target.astype(np.int64), [str(name) for name in digits.target_names])
