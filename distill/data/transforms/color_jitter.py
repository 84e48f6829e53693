"""Random brightness, contrast and saturation, drawn image by image."""

from __future__ import annotations

import itertools

import torch
from torch import Tensor

from distill.data.transforms.base import Transform

_ORDERS = torch.tensor(list(itertools.permutations(range(3))))
_LUMA = (0.2989, 0.587, 0.114)  # ITU-R 601, with torchvision's rounding


class ColorJitter(Transform):
    """Change brightness, contrast and saturation by random factors, in random order, as torchvision does.

    A factor is uniform in ``[max(0, 1 - value), 1 + value]``; 0 leaves that property alone. For a random hue use
    ``EachImage`` with ``torchvision.transforms.v2.ColorJitter``.

    Args:
        brightness: largest change of the brightness.
        contrast: largest change of the contrast.
        saturation: largest change of the saturation; grey images have none.
    """

    num_draws = 4
    moves = False

    def __init__(self, brightness: float = 0.0, contrast: float = 0.0, saturation: float = 0.0) -> None:
        for name, value in (("brightness", brightness), ("contrast", contrast), ("saturation", saturation)):
            if value < 0:
                raise ValueError(f"{name} must be 0 or more, found {value!r}")
        self.strengths = torch.tensor([brightness, contrast, saturation], dtype=torch.float64)

    def __call__(self, images: Tensor, draws: Tensor) -> Tensor:
        orders = _ORDERS[torch.floor(draws[:, 0] * len(_ORDERS)).long()]  # [batch, place]
        low = (1 - self.strengths).clamp(min=0)
        factors = low + (1 + self.strengths - low) * draws[:, 1:]  # [batch, property]
        jittered = images.clone()
        adjustments = (_adjust_brightness, _adjust_contrast, _adjust_saturation)
        for place, (kind, adjust) in itertools.product(range(3), enumerate(adjustments)):
            if self.strengths[kind] > 0:
                chosen = (orders[:, place] == kind).nonzero()[:, 0]
                places, strengths = chosen.to(images.device), factors[chosen, kind].to(images.device)
                jittered[places] = adjust(jittered[places], strengths)
        return jittered


def _adjust_brightness(images: Tensor, factors: Tensor) -> Tensor:
    """Change the brightness: blend with black."""
    return _blend(images, torch.zeros((), device=images.device), factors)


def _adjust_contrast(images: Tensor, factors: Tensor) -> Tensor:
    """Change the contrast: blend with the image's mean grey."""
    # Whole levels add up exactly in float64; in float32 the order of the sum, and so the batch, would show.
    mean = _grey(images).to(torch.float64).mean(dim=(1, 2, 3), keepdim=True).float()
    return _blend(images, mean, factors)


def _adjust_saturation(images: Tensor, factors: Tensor) -> Tensor:
    """Change the saturation: blend with the grey image."""
    return _blend(images, _grey(images), factors) if images.shape[1] == 3 else images


def _grey(images: Tensor) -> Tensor:
    """Return the luma ``[batch, 1, height, width]``; of uint8 images in whole levels, as torchvision has it."""
    if images.shape[1] != 3:
        return images.float()
    red, green, blue = images.float().unbind(dim=1)
    grey = (red * _LUMA[0] + green * _LUMA[1] + blue * _LUMA[2])[:, None]
    return grey if images.is_floating_point() else grey.floor()


def _blend(images: Tensor, other: Tensor, factors: Tensor) -> Tensor:
    """Return ``factor * image + (1 - factor) * other``, cut to the range of the images' type."""
    ratio = factors[:, None, None, None]
    highest = 1.0 if images.is_floating_point() else 255.0
    blended = images * ratio.float() + other * (1 - ratio).float()
    return blended.clamp(0.0, highest).to(images.dtype)
