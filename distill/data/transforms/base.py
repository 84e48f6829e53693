"""The contract of an augmentation: given random numbers, one for each image and parameter, it is a pure function."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar

from torch import Tensor

from distill.data.annotation import Sample


class Transform(ABC):
    """An augmentation whose parameters are computed from numbers that are handed in, a row for each image.

    It never draws a number itself, so an image's augmentation depends on its own row alone. Parameters differ
    from image to image within a batch, unlike in ``torchvision.transforms.v2``, which draws once for a batch.
    """

    num_draws: int
    """How many numbers in [0, 1) the transform uses for each image."""
    fixes_size: bool = False
    """Whether the images come out of one size whatever size they went in."""
    moves: ClassVar[bool] = True
    """Whether what is seen in a place may be elsewhere, or nowhere, afterwards, so that annotations have to follow."""
    uses_global_random: ClassVar[bool] = False
    """Whether it borrows torch's global generator while it runs: no other thread may run beside it then, and images
    have to be on the CPU."""

    @abstractmethod
    def __call__(self, images: Tensor, draws: Tensor) -> Tensor:
        """Augment a batch where it is, without waiting for a GPU; the images given are left as they are.

        Args:
            images: ``[batch, channel, height, width]``, uint8 in 0..255 or float in 0..1, on any device.
            draws: ``[batch, num_draws]``, float64 in [0, 1), on the CPU: what follows from them is small, and is
                computed there alike for all devices.

        Returns:
            ``[batch, channel, new height, new width]`` of the same type, on the images' device.

        Raises:
            ValueError: the images are too small for the options.
        """

    def together(self, sample: Sample, draws: Tensor) -> Sample:
        """Augment one image and its annotation alike.

        Args:
            sample: the image and its annotation, on the CPU; both are left as they are.
            draws: ``[num_draws]``.

        Raises:
            ValueError: the image is too small, or the transform moves what is seen and cannot take annotations along.
        """
        if self.moves:
            raise ValueError(f"{type(self).__name__} cannot take masks or boxes along")
        return Sample(self(sample.image[None], draws[None])[0], sample.annotation)


def check_share(name: str, value: float) -> None:
    """Raise ``ValueError`` unless the option is a probability."""
    if not 0.0 <= value <= 1.0:
        raise ValueError(f"{name} must be a probability from 0 to 1, found {value!r}")


def check_range(name: str, value: tuple[float, float], *, lowest: float, highest: float) -> None:
    """Raise ``ValueError`` unless the option is an increasing pair within bounds."""
    if len(value) != 2 or not lowest <= value[0] <= value[1] <= highest:
        raise ValueError(
            f"{name} must be two increasing numbers between {lowest:g} and {highest:g}, found {list(value)}"
        )
