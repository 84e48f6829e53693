"""What segmentation models return."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F


def heads(output: Any) -> list[Tensor]:
    """Return the main logits and those of the auxiliary head, where there is one, ``[batch, class, height, width]``.

    Raises:
        ValueError: the output is neither logits nor a mapping with them under ``out``.
    """
    if torch.is_tensor(output):
        return [output]
    if isinstance(output, Mapping) and torch.is_tensor(output.get("out")):
        return [output[name] for name in ("out", "aux") if output.get(name) is not None]
    raise ValueError(
        f"a segmentation model must return logits, or a mapping with logits under 'out', found {type(output).__name__}"
    )


def at_size(logits: Tensor, masks: Tensor) -> Tensor:
    """Return logits ``[batch, class, ...]`` at the height and width of masks ``[batch, height, width]``, bilinearly."""
    if logits.shape[2:] == masks.shape[1:]:
        return logits
    return F.interpolate(logits, size=masks.shape[1:], mode="bilinear", align_corners=False)
