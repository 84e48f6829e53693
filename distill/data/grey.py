"""Grey images for models of one or of three input channels."""

from __future__ import annotations

from torch import Tensor


def check_channels(channels: int) -> None:
    """Raise ``ValueError`` unless the option is 1 or 3."""
    if channels not in (1, 3):
        raise ValueError(f"channels must be 1, or 3 to repeat the grey channel, found {channels!r}")


def add_channels(images: Tensor, channels: int) -> Tensor:
    """Return ``[image, channels, height, width]`` of ``[image, height, width]``, the grey channel repeated."""
    return images[:, None].repeat(1, channels, 1, 1)
