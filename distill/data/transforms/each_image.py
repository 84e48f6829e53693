"""Any torchvision transform, run image by image under a seed of the image's own."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from distill.data.annotation import Sample
from distill.data.transforms.base import Transform
from distill.late import tv_tensors, v2


class EachImage(Transform):
    """Run a ``torchvision.transforms.v2`` transform on one image at a time, seeded by that image's numbers.

    The way to everything torchvision has, RandAugment for instance, at the price of speed: it can cost as much as
    half a training step. torch's global generator is put back as it was after each image.

    Masks and boxes go through the transform with their image, as ``tv_tensors``.

    Args:
        transform: a transform that takes one image ``[channel, height, width]``.
    """

    num_draws = 2
    uses_global_random = True

    def __init__(self, transform: v2.Transform) -> None:
        self.transform = transform
        self.fixes_size = isinstance(transform, v2.RandomResizedCrop)

    def __call__(self, images: Tensor, draws: Tensor) -> Tensor:
        views = [self._seeded(image, draw) for image, draw in zip(images, draws, strict=True)]
        sizes = {tuple(view.shape) for view in views}
        if len(sizes) > 1:
            raise ValueError(
                f"transform of EachImage must give images of one size, but {type(self.transform).__name__} gave "
                f"{sorted(sizes)}"
            )
        return torch.stack(views)

    def together(self, sample: Sample, draws: Tensor) -> Sample:
        given = {"image": tv_tensors.Image(sample.image), **sample.annotation.to_tv()}
        made = self._seeded(given, draws)
        image = made.pop("image").as_subclass(Tensor)
        return Sample(image, sample.annotation.from_tv(made, *image.shape[1:]))

    def _seeded(self, given: Any, draws: Tensor) -> Any:
        """Run the transform under the seed that two numbers make."""
        generator = torch.default_generator
        state = generator.get_state()
        high, low = draws.tolist()
        try:
            # 31 + 32 bits: torch refuses seeds past 2^63.
            generator.manual_seed((int(high * 2**31) << 32) | int(low * 2**32))
            return self.transform(given)
        finally:
            generator.set_state(state)
