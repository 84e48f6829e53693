"""Scenes of scikit-learn's handwritten digits, with exact masks and boxes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from distill.counter_random import derive_seed
from distill.data.annotated_memory import AnnotatedMemory
from distill.data.annotation import Annotation, Boxes, Mask
from distill.data.base import Dataset
from distill.data.composer import Composer, smallest_canvas
from distill.data.grey import add_channels, check_channels
from distill.data.ink import SIDE, Pixels, add_border
from distill.data.source import Indices
from distill.data.split import Split, draw
from distill.data.transforms import RandomCrop
from distill.data.transforms.base import Transform

_NUM_CLASSES = 11
_BACKGROUND = {"masks": "background", "boxes": "__background__"}
_ANNOTATIONS: dict[str, type[Annotation]] = {"masks": Mask, "boxes": Boxes}
_SHARE_HELD_OUT = 5  # one digit of five for validation, one for the test


class DigitScenes(Dataset):
    """Several handwritten digits on a noisy canvas, for segmentation or detection; drawn from a seed, no download.

    The digits are the 1,797 of :class:`~distill.data.Digits`, enlarged, turned by up to 14 degrees and painted over
    each other: none hides more than a quarter of what was painted of another. What is visible of a digit belongs to its
    mask, and its box is the tight one round that. Halves of digits below them belong to the background.

    No digit appears in two of training, validation and test, whatever the seed. The same options give the same bytes on
    every machine, both kinds of annotation the same images, and the first scenes of a part are the same whatever its
    number.

    Args:
        annotate: ``masks``, with the classes background, 0, ... 9, or ``boxes``, with the same classes.
        num_train: scenes to train on; ``split.train`` divides them between student and teacher.
        num_validation: scenes for validation.
        num_test: scenes for the test.
        size: side of the scenes in pixels.
        channels: 1, or 3 to repeat the grey channel.
        min_digits: fewest digits in a scene; where no room is left for a digit there may be fewer, but one.
        max_digits: most digits in a scene.
        min_side: shortest side of a digit in pixels, at least 8.
        max_side: longest side of a digit in pixels.
        max_clutter: most halves of digits in a scene.
        seed: of the scenes.
        split: who sees which scenes.
        augment: default: a crop with one pixel of padding for each 16 of the side (a mirrored digit is another sign).
        mean: of a channel, in 0..1; default: measured over scenes of the default options.
        std: likewise.
    """

    annotations = (Mask, Boxes)

    def __init__(
        self,
        *,
        annotate: Literal["masks", "boxes"] = "masks",
        num_train: int = 1000,
        num_validation: int = 200,
        num_test: int = 200,
        size: int = 64,
        channels: Literal[1, 3] = 3,
        min_digits: int = 2,
        max_digits: int = 6,
        min_side: int = 12,
        max_side: int = 28,
        max_clutter: int = 2,
        seed: int = 0,
        split: Split | None = None,
        augment: Sequence[Transform] | None = None,
        mean: Sequence[float] = (0.32975,),
        std: Sequence[float] = (0.21354,),
    ) -> None:
        if annotate not in _ANNOTATIONS:
            raise ValueError(f"annotate must be 'masks' or 'boxes', found {annotate!r}")
        check_channels(channels)
        self.counts = {"train": num_train, "validation": num_validation, "test": num_test}
        for part, count in self.counts.items():
            if count < 1:
                raise ValueError(f"num_{part} must be at least 1 scene, found {count}")
        _check_range("digits", "digit", 1, min_digits, max_digits)
        _check_range("side", "pixels", SIDE, min_side, max_side)
        if max_clutter < 0:
            raise ValueError(f"max_clutter must be 0 or more, found {max_clutter}")
        if size < smallest_canvas(max_digits, max_side):
            raise ValueError(
                f"size must be at least {smallest_canvas(max_digits, max_side)} pixels for {max_digits} digits of up "
                f"to {max_side} pixels, found {size}"
            )
        self.annotate = annotate
        self.annotation = _ANNOTATIONS[annotate]
        self.composer = Composer(size, min_digits, max_digits, min_side, max_side, max_clutter)
        self.seed = seed
        super().__init__(
            num_classes=_NUM_CLASSES,
            image_shape=(channels, size, size),
            mean=mean,
            std=std,
            split=split,
            augment=augment if augment is not None else [RandomCrop(padding=size // 16)],
        )
        self.split.check(sum(self.counts.values()), num_validation=num_validation, num_test=num_test)

    def read_source(self) -> AnnotatedMemory:
        from sklearn.datasets import load_digits

        digits = load_digits()
        pixels, labels = add_border(digits.images), digits.target.astype(np.int64)
        images: list[Tensor] = []
        annotations: list[Annotation] = []
        for part, chosen in share_out(labels).items():
            for image, annotation in self._scenes(part, pixels[chosen], labels[chosen]):
                images.append(image)
                annotations.append(annotation)
        return AnnotatedMemory(
            add_channels(torch.stack(images), self.image_shape[0]),
            annotations,
            [_BACKGROUND[self.annotate], *(str(name) for name in digits.target_names)],
            num_validation=self.counts["validation"],
            num_test=self.counts["test"],
        )

    def _scenes(self, part: str, digits: Pixels, labels: Indices) -> Iterator[tuple[Tensor, Annotation]]:
        """Give images ``[height, width]`` of one part with their annotations."""
        numbers = np.arange(self.counts[part], dtype=np.int64)
        for image, scene in self.composer.compose(digits, labels + 1, numbers, derive_seed(self.seed, "scenes", part)):
            yield image, scene.mask() if self.annotate == "masks" else scene.boxes()


def share_out(labels: Indices) -> dict[str, Indices]:
    """Return which digits each part uses, each class in its share: of five one for validation and one for the test.

    Args:
        labels: ``[digit]``, of all digits.
    """
    count = len(labels) // _SHARE_HELD_OUT
    rest = np.arange(len(labels), dtype=np.int64)
    seed = derive_seed("digits of scenes")
    test, rest = draw(count, rest, labels[rest], seed=seed)
    validation, train = draw(count, rest, labels[rest], seed=seed)
    return {"train": train, "validation": validation, "test": test}


def _check_range(name: str, unit: str, lowest: int, least: int, most: int) -> None:
    """Raise ``ValueError`` unless two options are a range that begins at ``lowest`` or later."""
    if not lowest <= least <= most:
        raise ValueError(f"min_{name} and max_{name} must be a range from {lowest} {unit} up, found {least} and {most}")
