"""Random mirror image, decided image by image."""

from __future__ import annotations

import torch
from torch import Tensor

from distill.data.annotation import Sample
from distill.data.transforms.base import Transform, check_share


class RandomHorizontalFlip(Transform):
    """Mirror an image left to right with probability ``p``."""

    num_draws = 1

    def __init__(self, p: float = 0.5) -> None:
        check_share("p", p)
        self.p = p

    def __call__(self, images: Tensor, draws: Tensor) -> Tensor:
        chosen = (draws[:, 0] < self.p).nonzero()[:, 0]
        if images.device.type != "cpu":
            return _mirrored(images, chosen.to(images.device))
        # On a CPU numpy moves single bytes three times as fast as torch.
        flipped = images.numpy().copy()
        flipped[chosen.numpy()] = flipped[chosen.numpy()][..., ::-1]
        return torch.from_numpy(flipped)

    def together(self, sample: Sample, draws: Tensor) -> Sample:
        if draws[0] >= self.p:
            return sample
        return Sample(sample.image.flip(2), sample.annotation.mirrored())


def _mirrored(images: Tensor, chosen: Tensor) -> Tensor:
    return images.index_copy(0, chosen, images.index_select(0, chosen).flip(3))
