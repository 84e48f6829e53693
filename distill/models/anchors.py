"""Anchors that follow from the strides of the levels, the same for every backbone."""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn

from distill.late import models


def anchor_generator(
    strides: Sequence[int], *, scale: float, per_octave: int, aspect_ratios: Sequence[float]
) -> nn.Module:
    """Make torchvision's anchor generator.

    Args:
        strides: of the levels, in pixels.
        scale: side of the smallest anchor of a level, in strides.
        per_octave: number of sides a level, spread evenly over a factor of two on a logarithmic scale.
        aspect_ratios: height by width of the anchors.

    Raises:
        ValueError: an option is not above 0.
    """
    if not scale > 0:
        raise ValueError(f"anchor_scale must be above 0, found {scale!r}")
    if per_octave < 1:
        raise ValueError(f"anchors_per_octave must be at least 1, found {per_octave!r}")
    if not aspect_ratios or min(aspect_ratios) <= 0:
        raise ValueError(f"aspect_ratios must be above 0, found {list(aspect_ratios)}")
    sizes = tuple(
        tuple(stride * scale * 2 ** (number / per_octave) for number in range(per_octave)) for stride in strides
    )
    made: nn.Module = models.detection.anchor_utils.AnchorGenerator(sizes, (tuple(aspect_ratios),) * len(sizes))
    return made
