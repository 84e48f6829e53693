"""Image files as tensors, whatever somebody put into them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch import Tensor

from distill.data.roots import Root

MAX_PIXELS = 50_000_000
"""A few kilobytes of PNG can unpack to hundreds of megabytes; Pillow itself stops at 179 million pixels only."""

FORMATS = ("BMP", "GIF", "JPEG", "PNG", "PPM", "TIFF", "WEBP")
"""Which decoders may run, whatever a file is called: Pillow's others include one that starts a PostScript program."""

SUFFIXES = (".bmp", ".gif", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp")
"""How the names of image files end."""

_STRETCHED = {"L;2": 85, "L;4": 17}
"""What Pillow multiplies grey values of 2 and 4 bits by, to make 0..255 of them; in a mask they are indices."""


def is_image(name: str) -> bool:
    """Whether a file is an image by its name."""
    return name.lower().endswith(SUFFIXES) and not name.rpartition("/")[2].startswith(".")


def decode_image(root: Root, name: str, channels: Literal[1, 3]) -> Tensor:
    """Return one file as ``[channel, height, width]``, uint8.

    Raises:
        ValueError: the file is no image, is damaged, or is too large; it is named.
    """
    with _opened(root, name, "image", FORMATS) as image:
        if image.mode.startswith(("I", "F")):
            raise ValueError(f"pixels must have 8 bits a channel, found mode {image.mode}; convert the file")
        pixels = np.array(image.convert("RGB" if channels == 3 else "L"))
    tensor = torch.from_numpy(pixels)
    return tensor[None] if channels == 1 else tensor.permute(2, 0, 1).contiguous()


def decode_mask(root: Root, name: str) -> npt.NDArray[np.uint8]:
    """Return one PNG of indices as ``[height, width]``; of a palette its indices, never its colours.

    Raises:
        ValueError: the file is no PNG, is damaged or too large, or holds colours or values above 255; it is named.
    """
    with _opened(root, name, "mask", ("PNG",)) as image:
        if image.mode not in ("1", "L", "P") and not image.mode.startswith("I"):
            raise ValueError(
                f"masks must have one channel of class indices, found mode {image.mode}; write indices, not colours"
            )
        factor = _STRETCHED.get(_raw_mode(image), 1)
        values = np.array(image)
        if values.max() > 255:
            raise ValueError(f"indices must be 255 at most, found {values.max()}")
    return values.astype(np.uint8) // np.uint8(factor)


@contextmanager
def _opened(root: Root, name: str, what: str, formats: tuple[str, ...]) -> Iterator[Image.Image]:
    """Open a file with one of the decoders, and name it in whatever goes wrong."""
    try:
        with root.open(name) as file, Image.open(file, formats=formats) as image:
            if image.width * image.height > MAX_PIXELS:
                raise ValueError(
                    f"at most {MAX_PIXELS:,} pixels are allowed, found {image.width}x{image.height}; shrink it"
                )
            yield image
    except Exception as error:  # Pillow's decoders raise nearly anything on damaged files
        raise ValueError(f"cannot read {what} {root.location(name)}: {error}") from error


def _raw_mode(image: Any) -> Any:
    """Return how a PNG's pixels are packed, as Pillow calls it; it has to be asked before they are read."""
    return image.tile[0][3] if image.tile else None
