"""A source of images whose masks are PNGs of class indices."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Literal

import numpy as np
import numpy.typing as npt
import torch

from distill.data.annotated_source import AnnotatedSource
from distill.data.annotation import Mask
from distill.data.annotation.mask import IGNORE
from distill.data.canvas import Canvas
from distill.data.decoding import decode_mask
from distill.data.roots import ListedFile, Root

NO_VALUE = -1
"""In a table of values: what a mask must not hold."""

Values = npt.NDArray[np.int16]
"""``[256]``: what each value of a mask's file stands for: a class, ``IGNORE``, or ``NO_VALUE``."""


def values_of(classes: Sequence[int], ignored: Iterable[int] = (IGNORE,)) -> Values:
    """Return the table of files in which class ``i`` is written as ``classes[i]``."""
    table = np.full(256, NO_VALUE, dtype=np.int16)
    table[list(ignored)] = IGNORE
    table[list(classes)] = np.arange(len(classes))
    return table


class MaskSource(AnnotatedSource):
    """Image files, each with a mask.

    Args:
        root: the folder that holds the files.
        files: one an image.
        classes: the classes' names, by label.
        masks: of each image.
        values: what the values in the masks' files stand for.
        num_validation: how many images before the test part are the own validation part.
        num_test: how many images at the end are the own test part.
        canvas: the size that images are brought to.
        channels: 3 for colour, 1 for grey; files are converted.
        num_threads: how many images are decoded at once.
    """

    annotation = Mask

    def __init__(
        self,
        root: Root,
        files: Sequence[ListedFile],
        classes: Sequence[str],
        *,
        masks: Sequence[ListedFile],
        values: Values,
        num_validation: int,
        num_test: int,
        canvas: Canvas,
        channels: Literal[1, 3],
        num_threads: int,
    ) -> None:
        super().__init__(
            root,
            files,
            classes,
            num_validation=num_validation,
            num_test=num_test,
            canvas=canvas,
            channels=channels,
            num_threads=num_threads,
        )
        self.masks = masks
        self.values = values

    @property
    def annotation_files(self) -> Sequence[ListedFile]:
        return self.masks

    def annotation_values(self) -> Iterable[bytes]:
        yield self.values.astype("<i2").tobytes()

    def annotate(self, index: int, height: int, width: int) -> Mask:
        name = self.masks[index].name
        found = decode_mask(self.root, name)
        if found.shape != (height, width):
            raise ValueError(
                f"mask {self.root.location(name)} must have the size of its image {self.files[index].name}, "
                f"{width}x{height}, found {found.shape[1]}x{found.shape[0]}"
            )
        classes = self.values[found]
        if (classes == NO_VALUE).any():
            wrong = np.unique(found[classes == NO_VALUE])
            raise ValueError(
                f"mask {self.root.location(name)} must hold {_shown(self.values)}, found "
                f"{', '.join(map(str, wrong[:5]))} in {np.count_nonzero(classes == NO_VALUE):,} pixels"
            )
        return Mask(torch.from_numpy(classes.astype(np.uint8)))


def _shown(values: Values) -> str:
    """Return for people which values stand for a class and which for none."""
    known = np.flatnonzero((values >= 0) & (values != IGNORE))
    ignored = np.flatnonzero(values == IGNORE)
    unknown = f", and {', '.join(map(str, ignored))} where it is not known" if len(ignored) else ""
    return f"class indices from {known[0]} to {known[-1]}{unknown}"
