"""Any torchvision transform, run image by image under a seed of the image's own."""

from __future__ import annotations

import torch
from torch import Tensor

from distill.data.transforms.base import Transform
from distill.late import v2


class EachImage(Transform):
    """Run a ``torchvision.transforms.v2`` transform on one image at a time, seeded by that image's numbers.

    The way to everything torchvision has, RandAugment for instance, at the price of speed: it can cost as much as
    half a training step. torch's global generator is put back as it was after each image.

    Args:
        transform: a transform that takes one image ``[channel, height, width]``.
    """

    num_draws = 2
    uses_global_random = True

    def __init__(self, transform: v2.Transform) -> None:
        self.transform = transform
        self.fixes_size = isinstance(transform, v2.RandomResizedCrop)

    def __call__(self, images: Tensor, draws: Tensor) -> Tensor:
        generator = torch.default_generator
        state = generator.get_state()
        try:
            views = []
            for image, (high, low) in zip(images, draws.tolist(), strict=True):
                # 31 + 32 bits: torch refuses seeds past 2^63.
                generator.manual_seed((int(high * 2**31) << 32) | int(low * 2**32))
                views.append(self.transform(image))
        finally:
            generator.set_state(state)
        sizes = {tuple(view.shape) for view in views}
        if len(sizes) > 1:
            raise ValueError(
                f"transform of EachImage must give images of one size, but {type(self.transform).__name__} gave "
                f"{sorted(sizes)}"
            )
        return torch.stack(views)
