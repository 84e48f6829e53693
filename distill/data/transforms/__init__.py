"""Augmentations: batched, and a function of (data seed, epoch, image) alone. ``__all__`` is the registry."""

from distill.data.transforms.color_jitter import ColorJitter
from distill.data.transforms.each_image import EachImage
from distill.data.transforms.random_crop import RandomCrop
from distill.data.transforms.random_erasing import RandomErasing
from distill.data.transforms.random_horizontal_flip import RandomHorizontalFlip
from distill.data.transforms.random_resized_crop import RandomResizedCrop
from distill.data.transforms.random_scale_crop import RandomScaleCrop

__all__ = [
    "ColorJitter",
    "EachImage",
    "RandomCrop",
    "RandomErasing",
    "RandomHorizontalFlip",
    "RandomResizedCrop",
    "RandomScaleCrop",
]
