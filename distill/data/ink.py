"""Enlarging and turning 8x8 digits in whole numbers, so that every machine gets the same bytes."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt

Pixels = npt.NDArray[Any]

SIDE = 8
"""Pixels of a digit's side as scikit-learn has it."""
LEVELS = 16
"""The level of full ink; 0 is none."""

_BEFORE, _AFTER = 1, 2
_ROW = _BEFORE + SIDE + _AFTER
_ONE = 256  # one pixel of the digit, in the unit of positions


def add_border(digits: Pixels) -> Pixels:
    """Return digits ``[digit, 8, 8]`` with the border without ink that :func:`enlarge` needs, ``[digit, 121]``."""
    border = ((0, 0), (_BEFORE, _AFTER), (_BEFORE, _AFTER))
    bordered: Pixels = np.pad(digits.astype(np.int64), border)
    return bordered.reshape(len(digits), _ROW * _ROW)


def enlarge(digit: Pixels, side: int, lean: int) -> Pixels:
    """Return a digit enlarged (bilinear) and turned about its middle.

    Args:
        digit: ``[121]``, one of those that :func:`add_border` returns.
        side: of the result in pixels.
        lean: the tangent of the angle, in 64ths; what is turned also shrinks by the angle's cosine.

    Returns:
        ``[side, side]``, uint8: ink from 0 to 255.
    """
    places, weights = _corners(side, lean)
    total = (digit[places] * weights).sum(axis=0)  # at most LEVELS * _ONE ** 2
    ink: Pixels = total * 255 // (LEVELS * _ONE * _ONE)
    return ink.astype(np.uint8).reshape(side, side)


@lru_cache(maxsize=4096)
def _corners(side: int, lean: int) -> tuple[Pixels, Pixels]:
    """Return the four pixels of a bordered digit round each pixel of the result, and their weights, ``[4, pixel]``."""
    from_middle = 2 * np.arange(side) - (side - 1)  # in half pixels
    across, down = from_middle[None, :], from_middle[:, None]
    middle = (SIDE - 1) * _ONE // 2
    scale = SIDE * _ONE // (2 * 64)
    first, last = -_BEFORE * _ONE, SIDE * _ONE
    column = np.clip(middle + (64 * across + lean * down) * scale // side, first, last).reshape(-1)
    row = np.clip(middle + (64 * down - lean * across) * scale // side, first, last).reshape(-1)
    right, below = column % _ONE, row % _ONE
    corner = (row // _ONE + _BEFORE) * _ROW + column // _ONE + _BEFORE
    places = np.stack([corner, corner + 1, corner + _ROW, corner + _ROW + 1])
    left, above = _ONE - right, _ONE - below
    return places, np.stack([above * left, above * right, below * left, below * right])
