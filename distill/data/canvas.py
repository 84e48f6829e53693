"""The one size in which images of differing sizes reach the models, and how they are brought to it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from distill.data.annotation import Sample

Fit = Literal["stretch", "pad", "crop"]


@dataclass(frozen=True)
class Canvas:
    """The size of all images, and how an image of another size is brought to it.

    Attributes:
        height: in pixels.
        width: in pixels.
        fit: ``stretch`` resizes to the canvas and gives up the aspect, as SSD does (Liu et al. 2016,
            arXiv:1512.02325); ``pad`` resizes as far as it fits and pads with black on the right and below, where
            nothing is known; ``crop`` resizes until the canvas is covered and cuts out the middle.
    """

    height: int
    width: int
    fit: Fit

    def fitted(self, sample: Sample) -> Sample:
        """Return image and annotation in the canvas' size; what has it already stays as it is."""
        height, width = sample.image.shape[1:]
        if (height, width) == (self.height, self.width):
            return sample
        if self.fit == "stretch":
            return sample.resized(self.height, self.width)
        choose = min if self.fit == "pad" else max
        scale = choose(self.height / height, self.width / width)
        new_height, new_width = max(1, round(scale * height)), max(1, round(scale * width))
        top, left = max(0, new_height - self.height) // 2, max(0, new_width - self.width) // 2
        return sample.resized(new_height, new_width).window(top, left, self.height, self.width)


def sides_of(size: int | Sequence[int]) -> tuple[int, int]:
    """Return height and width that an option names by both or by one number.

    Raises:
        ValueError: it is neither, or a side is below one pixel.
    """
    sides = (size, size) if isinstance(size, int) else tuple(size)
    if len(sides) != 2 or min(sides) < 1:
        raise ValueError(
            f"size must be height and width in pixels, or one number for both, at least 1, found "
            f"{size if isinstance(size, int) else list(size)}"
        )
    return sides[0], sides[1]
