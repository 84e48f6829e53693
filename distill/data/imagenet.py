"""How ImageNet's images are normalised, which most pretrained models expect."""

from __future__ import annotations

IMAGENET_MEAN = {1: (0.449,), 3: (0.485, 0.456, 0.406)}
"""Of each channel in 0..1, by the number of channels."""

IMAGENET_STD = {1: (0.226,), 3: (0.229, 0.224, 0.225)}
"""Of each channel in 0..1, by the number of channels."""
