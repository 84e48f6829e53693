"""Which axes of an activation are channel, height and width."""

from __future__ import annotations

import math

from distill.taps.tap import Layout, Tap

MAX_PREFIX = 16
"""Most leading tokens that a token grid may carry: a class token, a distillation token, registers."""


def describe(
    name: str,
    shape: tuple[int, ...],
    sample_shape: tuple[int, ...],
    *,
    grid: tuple[int, int] | None,
    hint: Layout = "nchw",
) -> Tap | None:
    """Say what kind of activation a shape is, or ``None`` where it is none that can be tapped.

    - Four axes: height and width are the two neighbouring axes that have the aspect of the image; for a square image
      two equal axes. Where both orders fit (a map with as many channels as rows), ``hint`` decides.
    - Three axes are tokens, channels last. They are the cells of the latest map, ``grid``, or else the largest square
      that they fill; at most ``MAX_PREFIX`` tokens may be left over, and those lead.
    - Two axes are a vector.

    Args:
        name: name of the module.
        shape: shape of its output, batch first.
        sample_shape: ``[batch, channel, height, width]`` of the images that gave this output.
        grid: height and width of the latest map before it.
        hint: the layout to take where the shape does not tell.
    """
    batch, _, rows, columns = sample_shape
    if shape[:1] != (batch,) or 0 in shape:
        return None
    if len(shape) == 2:
        return Tap(name, shape[1], 1, 1, float(rows), "vector")
    if len(shape) == 3:
        return _describe_tokens(name, shape, (rows, columns), grid)
    if len(shape) == 4:
        return _describe_map(name, shape, (rows, columns), hint)
    return None


def _describe_map(name: str, shape: tuple[int, ...], image: tuple[int, int], hint: Layout) -> Tap | None:
    # A square image leaves no doubt; otherwise each side may have been rounded by up to one row.
    tolerance = 0 if image[0] == image[1] else max(image)
    first_gap = abs(shape[2] * image[1] - shape[3] * image[0])
    last_gap = abs(shape[1] * image[1] - shape[2] * image[0])
    if min(first_gap, last_gap) > tolerance:
        return None
    if last_gap < first_gap or (last_gap == first_gap and hint == "nhwc"):
        return Tap(name, shape[3], shape[1], shape[2], image[0] / shape[1], "nhwc")
    return Tap(name, shape[1], shape[2], shape[3], image[0] / shape[2], "nchw")


def _describe_tokens(
    name: str, shape: tuple[int, ...], image: tuple[int, int], grid: tuple[int, int] | None
) -> Tap | None:
    num_tokens, channels = shape[1:]
    grids = [] if grid is None else [grid]
    if image[0] == image[1]:
        side = math.isqrt(num_tokens)
        grids.append((side, side))
    for height, width in grids:
        num_prefix = num_tokens - height * width
        if 0 <= num_prefix <= MAX_PREFIX:
            return Tap(name, channels, height, width, image[0] / height, "tokens", num_prefix)
    return None
