"""A tap: where a model is read, and how what is read there becomes a map."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from torch import Tensor

OUTPUT = ""
"""The tap name of a model's own output: ``named_modules()`` calls the root ``""``."""

LEVEL = ":level"
"""Begins the names of the maps of a pyramid, which a model's task shows, the finest first: ``:level0``, ``:level1``."""

BOXES = ":boxes"
"""The tap name of the offsets of boxes, ``[batch, 4, location]``."""

BOX_DISTRIBUTION = ":box_distribution"
"""The tap name of the logits of how far each side of a box lies, side by side, ``[batch, 4 * bins, location]``."""

INPUT = ":input"
"""Stands behind the module's name in the name of a tap that reads what enters it; where taps read several of its calls,
the number of the call follows."""

Layout = Literal["nchw", "nhwc", "tokens", "vector", "output"]
"""Order of an activation's axes: ``[batch, channel, height, width]``, ``[batch, height, width, channel]``,
``[batch, token, channel]``, where class tokens may lead, or ``[batch, channel]``. ``output``: part of what the model
returns, as it is; no module is hooked for it."""


def is_output(name: str) -> bool:
    """Whether a tap's name is that of a part of the model's output: the logits, or what its task shows beside them."""
    return name == OUTPUT or name.startswith(":")


@dataclass(frozen=True)
class Tap:
    """A named activation of a model and its shape.

    Attributes:
        name: the module's name in ``named_modules()``.
        channels: width of the activation.
        height: rows of the map; 1 for a vector.
        width: columns of the map; 1 for a vector.
        stride: rows of the image for one row of the map.
        layout: the order of the axes in what the module returns.
        num_prefix: leading tokens that are no part of the map (class and register tokens).
        entering: the call of the module, counted from 0, whose input is read; ``None``: what it returns is read.
    """

    name: str
    channels: int
    height: int
    width: int
    stride: float
    layout: Layout
    num_prefix: int = 0
    entering: int | None = None

    @property
    def module(self) -> str:
        """Name of the module that is hooked."""
        return self.name if self.entering is None else self.name.rpartition(INPUT)[0]

    @property
    def octave(self) -> int:
        """The stride as a power of two, rounded: paddings give 54 and 56 rows in models of one stride."""
        return round(math.log2(self.stride))

    @property
    def is_map(self) -> bool:
        """Whether the activation has more than one place."""
        return self.height * self.width > 1

    @property
    def shape(self) -> tuple[int, int, int]:
        """``(channel, height, width)`` of what :meth:`read` returns for a sample."""
        return self.channels, self.height, self.width

    def read(self, activation: Tensor) -> Tensor:
        """Return the module's output as ``[batch, channel, height, width]``, without leading tokens; a view of it."""
        if self.layout in ("nchw", "output"):
            return activation
        if self.layout == "nhwc":
            return activation.permute(0, 3, 1, 2)
        if self.layout == "tokens":
            cells = activation[:, self.num_prefix :].transpose(1, 2)  # [batch, channel, height * width]
            return cells.reshape(len(activation), self.channels, self.height, self.width)
        return activation[:, :, None, None]
