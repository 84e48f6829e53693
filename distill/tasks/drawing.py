"""Images with what is known or was found on them drawn over it, for people to look at."""

from __future__ import annotations

import colorsys
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from distill.data.annotation.mask import IGNORE

Color = tuple[int, int, int]
"""Red, green and blue in 0..255."""

LEAST_SIDE = 240
"""Pixels that the shorter side of a drawn image has at least, so that lines and letters do not hide it."""
LETTER_PIXELS = 13
OPACITY = 0.6
UNKNOWN: Color = (160, 160, 160)
BACKGROUND = 0
"""The class that is left as the image has it."""


@dataclass(frozen=True)
class Drawing:
    """Images that were drawn on.

    Attributes:
        images: ``[3, height, width]`` each, uint8, at least ``LEAST_SIDE`` pixels a side.
        colors: the colour of each class that appears on any of them, by its name.
    """

    images: tuple[Tensor, ...]
    colors: Mapping[str, Color]


def class_color(label: int) -> Color:
    """Return the colour of a class: the same in every picture, and unlike those of its neighbours."""
    golden = 0.618033988749895  # of a turn: the hues of consecutive classes lie far apart, whatever their number
    red, green, blue = colorsys.hsv_to_rgb(label * golden % 1.0, 0.85 if label % 2 else 0.65, 1.0 - 0.2 * (label % 3))
    return round(255 * red), round(255 * green), round(255 * blue)


def enlarged(image: Tensor) -> tuple[Tensor, int]:
    """Return an image ``[channel, height, width]``, uint8, in three channels and large enough to draw on.

    Returns:
        The image, and how many of its pixels one pixel became on a side; pixels stay sharp.
    """
    times = max(1, math.ceil(LEAST_SIDE / min(image.shape[1:])))
    large = image.repeat_interleave(times, dim=1).repeat_interleave(times, dim=2)
    return large.expand(3, -1, -1).contiguous(), times


def draw_masks(images: Sequence[Tensor], masks: Tensor, classes: Sequence[str]) -> Drawing:
    """Lay the class of each pixel over the grey image as a colour; of the background nothing is laid over.

    Args:
        images: ``[channel, height, width]`` each, uint8, with 1 or 3 channels.
        masks: ``[image, height, width]``, classes; 255 where not known, which is drawn in grey.
        classes: names of the classes, by label.
    """
    names = dict(enumerate(classes)) | {IGNORE: "not known"}
    palette = {label: UNKNOWN if label == IGNORE else class_color(label) for label in names}
    drawn: list[Tensor] = []
    for image, mask in zip(images, masks.cpu(), strict=True):
        large, _ = enlarged(image.cpu())
        told = F.interpolate(mask[None, None].to(torch.uint8), size=large.shape[1:], mode="nearest-exact")[0, 0]
        colored = large.float().mean(dim=0, keepdim=True).repeat(3, 1, 1)  # grey, so that the colours are the classes
        for label in _labels(told):
            if label != BACKGROUND:
                color = colored.new_tensor(palette[label])[:, None]
                colored[:, told == label] = (1 - OPACITY) * colored[:, told == label] + OPACITY * color
        drawn.append(colored.round().to(torch.uint8))
    found = [label for label in _labels(masks) if label != BACKGROUND]
    return Drawing(tuple(drawn), {names[label]: palette[label] for label in found})


def draw_boxes(
    images: Sequence[Tensor],
    boxes: Sequence[Tensor],
    labels: Sequence[Tensor],
    classes: Sequence[str],
    *,
    scores: Sequence[Tensor] | None = None,
) -> Drawing:
    """Draw boxes on images, each in the colour of its class and with its name.

    Args:
        images: ``[channel, height, width]`` each, uint8, with 1 or 3 channels.
        boxes: ``[object, 4]`` each: left, top, right, bottom in pixels of the image.
        labels: ``[object]`` each, classes.
        classes: names of the classes, by label.
        scores: ``[object]`` each, in 0..1; shown beside the names.
    """
    drawn: list[Tensor] = []
    shown: set[int] = set()
    for number, (image, corners, kinds) in enumerate(zip(images, boxes, labels, strict=True)):
        large, times = enlarged(image.cpu())
        told = [int(kind) for kind in kinds]
        shown |= set(told)
        texts = [classes[label] for label in told]
        if scores is not None:
            texts = [f"{text} {score:.2f}" for text, score in zip(texts, scores[number].tolist(), strict=True)]
        drawn.append(_with_boxes(large, (corners.detach().cpu() * times).tolist(), told, texts))
    return Drawing(tuple(drawn), {classes[label]: class_color(label) for label in sorted(shown)})


def _with_boxes(
    image: Tensor, boxes: Sequence[tuple[float, ...]], labels: Sequence[int], texts: Sequence[str]
) -> Tensor:
    """Draw boxes on an image of its final size; each text stands on its box, or inside where there is no room."""
    import numpy as np
    from PIL import Image, ImageDraw, ImageFont

    canvas = Image.fromarray(image.permute(1, 2, 0).numpy())
    draw, font = ImageDraw.Draw(canvas), ImageFont.load_default(LETTER_PIXELS)
    for (left, top, right, bottom), label in zip(boxes, labels, strict=True):
        # The pixels of a box end before its right and lower border.
        draw.rectangle((left, top, max(left, right - 1), max(top, bottom - 1)), outline=class_color(label), width=2)
    for (left, top, _, _), label, text in zip(boxes, labels, texts, strict=True):
        width, height = draw.textlength(text, font=font) + 4, LETTER_PIXELS + 4
        x, y = min(left, canvas.width - width), top - height if top >= height else top
        draw.rectangle((x, y, x + width - 1, y + height - 1), fill=class_color(label))
        draw.text((x + 2, y + 1), text, fill=_ink_on(class_color(label)), font=font)
    return torch.from_numpy(np.asarray(canvas).copy()).permute(2, 0, 1).contiguous()


def _ink_on(color: Color) -> Color:
    """Return black or white, whichever reads on a colour, by its luma."""
    red, green, blue = color
    return (0, 0, 0) if 0.299 * red + 0.587 * green + 0.114 * blue > 128 else (255, 255, 255)


def _labels(masks: Tensor) -> list[int]:
    return [int(label) for label in torch.unique(masks)]
