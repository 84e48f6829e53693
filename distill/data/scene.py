"""A grey canvas on which objects are painted, and what is visible of each."""

from __future__ import annotations

import numpy as np
import torch

from distill.data.annotation import Boxes, Mask
from distill.data.ink import Pixels

LEAST_INK = 100
"""Of 255: with less, nothing is painted in a pixel; with more, the pixel belongs to the object."""


class Scene:
    """A grey canvas on which objects are painted; later ones cover earlier ones.

    Attributes:
        image: ``[height, width]``, int64 in 0..255.
        owners: ``[height, width]``, int64: the number of the object that is visible in a pixel, from 1; 0: none.
        labels: the objects' classes, in the order of painting.
    """

    def __init__(self, background: Pixels) -> None:
        self.image = background.astype(np.int64)
        self.owners: Pixels = np.zeros(background.shape, dtype=np.int64)
        self.labels: list[int] = []
        self._painted: list[int] = []
        self._visible: list[int] = []

    def smear(self, ink: Pixels, top: int, left: int, shade: int) -> None:
        """Paint something that is no object; meant for before the first object.

        Args:
            ink: ``[height, width]``, 0 to 255.
            top: row of its first pixel.
            left: column of its first pixel.
            shade: grey level of full ink.
        """
        window = _window(ink, top, left)
        there = ink >= LEAST_INK
        opacity = np.minimum(2 * ink.astype(np.int64), 255)
        below = self.image[window]
        self.image[window] = np.where(there, below + (shade - below) * opacity // 255, below)

    def add(self, ink: Pixels, top: int, left: int, shade: int, label: int) -> bool:
        """Paint an object, unless that would hide more than a quarter of one that was painted before.

        Args:
            ink: ``[height, width]``, 0 to 255.
            top: row of its first pixel.
            left: column of its first pixel.
            shade: grey level of full ink.
            label: its class, from 1.

        Returns:
            Whether it was painted.
        """
        window = _window(ink, top, left)
        there = ink >= LEAST_INK
        hidden = np.bincount(self.owners[window][there], minlength=len(self.labels) + 1)[1:].tolist()
        visible = [before - lost for before, lost in zip(self._visible, hidden, strict=True)]
        if any(4 * now < 3 * painted for now, painted in zip(visible, self._painted, strict=True)):
            return False
        self.smear(ink, top, left, shade)
        self.labels.append(label)
        self.owners[window][there] = len(self.labels)
        num_painted = int(there.sum())
        self._painted.append(num_painted)
        self._visible = [*visible, num_painted]
        return True

    def mask(self) -> Mask:
        """Return the class of every pixel; 0 where no object is visible."""
        return Mask(torch.from_numpy(np.array([0, *self.labels], dtype=np.uint8)[self.owners]))

    def boxes(self) -> Boxes:
        """Return the boxes round what is visible of each object, in the order of painting."""
        edges = []
        for number in range(1, len(self.labels) + 1):
            mine = self.owners == number
            rows, columns = np.flatnonzero(mine.any(axis=1)), np.flatnonzero(mine.any(axis=0))
            edges.append([columns[0], rows[0], columns[-1] + 1, rows[-1] + 1])
        height, width = self.owners.shape
        return Boxes(
            torch.tensor(np.array(edges).reshape(-1, 4), dtype=torch.float32),
            torch.tensor(self.labels, dtype=torch.int64),
            torch.zeros(len(edges), dtype=torch.bool),
            height,
            width,
        )


def _window(ink: Pixels, top: int, left: int) -> tuple[slice, slice]:
    """Return the rows and columns that a shape takes."""
    return slice(top, top + ink.shape[0]), slice(left, left + ink.shape[1])
