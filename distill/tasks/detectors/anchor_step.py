"""How far apart the anchors of a level lie."""

from __future__ import annotations

import math

DIVISOR = 32
"""Of the sides of the images that torchvision's detectors look at: they pad what is no multiple of it."""


def anchor_step(side: int, places: int) -> int:
    """Return how many pixels lie between neighbouring anchors of a level along one side of the image.

    It is the stride of the map, a power of two. Only where that is more than ``DIVISOR`` and does not divide the padded
    side it is less, as torchvision has it and its weights were trained: the padded side by the number of its places.

    Args:
        side: of the image, in pixels.
        places: of the map along this side.
    """
    for stride in (1 << exponent for exponent in range(side.bit_length())):
        if places > 2 and places in (side // stride, math.ceil(side / stride)):
            padded = DIVISOR * math.ceil(side / DIVISOR)
            return padded // math.ceil(padded / stride)
    return side // places  # so few that several strides are possible, or the stride is no power of two
