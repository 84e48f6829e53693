"""Random crop of a padded image, each image of the batch at its own place."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from distill.data.annotation import Sample
from distill.data.transforms.base import Transform


class RandomCrop(Transform):
    """Pad with black on all sides, then cut out a window at a uniformly drawn place.

    Args:
        size: side of the square window in pixels; ``None`` keeps the images' own size.
        padding: pixels added on each side.
    """

    num_draws = 2

    def __init__(self, size: int | None = None, padding: int = 4) -> None:
        if size is not None and size < 1:
            raise ValueError(f"size must be at least 1 pixel, found {size}")
        if padding < 0:
            raise ValueError(f"padding must be 0 or more pixels, found {padding}")
        self.size = size
        self.padding = padding

    def __call__(self, images: Tensor, draws: Tensor) -> Tensor:
        height, width = (self.size, self.size) if self.size is not None else images.shape[-2:]
        padded = F.pad(images, [self.padding] * 4)
        if height > padded.shape[-2] or width > padded.shape[-1]:
            raise ValueError(
                f"size of RandomCrop must fit the padded image, found {height}x{width} "
                f"for {padded.shape[-2]}x{padded.shape[-1]}; give it a larger padding"
            )
        rows = torch.floor(draws[:, 0] * (padded.shape[-2] - height + 1)).long()
        columns = torch.floor(draws[:, 1] * (padded.shape[-1] - width + 1)).long()
        if padded.device.type != "cpu":
            return _windows(padded, rows.to(padded.device), columns.to(padded.device), height, width)
        # numpy copies whole windows; torch's gather walks pixel by pixel and takes ten times as long on a CPU.
        windows = np.lib.stride_tricks.sliding_window_view(padded.numpy(), (height, width), axis=(2, 3))
        return torch.from_numpy(windows[np.arange(len(images)), :, rows.numpy(), columns.numpy()])

    def together(self, sample: Sample, draws: Tensor) -> Sample:
        image = self(sample.image[None], draws[None])[0]
        height, width = image.shape[1:]
        room = (sample.image.shape[1] - height, sample.image.shape[2] - width)
        top, left = (
            int(draw * (free + 2 * self.padding + 1)) - self.padding
            for draw, free in zip(draws.tolist(), room, strict=True)
        )
        return Sample(image, sample.annotation.window(top, left, height, width))


def _windows(images: Tensor, rows: Tensor, columns: Tensor, height: int, width: int) -> Tensor:
    """Cut one window out of each image, at ``rows`` and ``columns`` ``[batch]``."""
    device = images.device
    batch = torch.arange(len(images), device=device)[:, None, None]
    down = rows[:, None, None] + torch.arange(height, device=device)[:, None]
    across = columns[:, None, None] + torch.arange(width, device=device)
    # The result of indices around a slice has the slice's dimension last.
    return images[batch, :, down, across].permute(0, 3, 1, 2)
