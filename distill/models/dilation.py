"""Maps that keep their resolution: strides become dilations."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from distill.models.chain import SIDE, Unit


@dataclass(frozen=True)
class _Change:
    """What becomes of a convolution: the factor of its dilation and padding, and whether its stride goes."""

    factor: int
    stops: bool


def dilate(units: Sequence[Unit], *, in_channels: int, output_stride: int) -> None:
    """Change a chain so that no map is coarser than ``output_stride``, as DeepLab does (arXiv:1706.05587, section 3.1).

    Convolutions of stride 2 beyond it get stride 1, and all that follow are dilated by what was not halved. So every
    second value of a map is what it was; only what looks at whole maps (squeeze-and-excitation) sees others. This is
    torchvision's ``replace_stride_with_dilation`` for any network; its MobileNetV3 differs, where the convolution that
    loses its stride is dilated, too.

    Args:
        units: of a main line; the convolutions in them are changed.
        in_channels: channels of the images.
        output_stride: rows of the image for one row of the coarsest map, at most.

    Raises:
        ValueError: ``output_stride`` is no power of two, or something else than a convolution of odd size halves a map.
    """
    if type(output_stride) is not int or output_stride < 1 or output_stride & (output_stride - 1):
        raise ValueError(f"output_stride must be a power of two, such as 8 or 16, found {output_stride!r}")
    finest = round(math.log2(output_stride))
    if units[-1].tap.octave <= finest:
        return
    for name, change in _changes(units, in_channels, finest).items():
        _apply(change, *_both(units, name))
    try:
        rows = _run(units, in_channels)
    except RuntimeError as error:  # branches that no longer have one size
        raise ValueError(f"output_stride {output_stride} does not go with this backbone: {error}") from error
    for unit, found in zip(units, rows, strict=True):
        if unit.tap.octave > finest and found != SIDE // output_stride:
            raise ValueError(
                f"output_stride {output_stride} does not go with this backbone: without strides {unit.name!r} returns "
                f"{found} rows for {SIDE} of the image, not {SIDE // output_stride}"
            )


def _changes(units: Sequence[Unit], in_channels: int, finest: int) -> dict[str, _Change]:
    changes: dict[str, _Change] = {}
    coarsest = units[-1].tap.octave

    def look(name: str, module: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
        if any(True for _ in module.children()) or not (isinstance(output, Tensor) and output.dim() == 4):
            return
        entering, leaving = (_octave(rows) for rows in (inputs[0].shape[-2], output.shape[-2]))
        if output.shape[-2] == 1 or inputs[0].shape[-2] == 1 or leaving <= finest:
            return
        if isinstance(module, nn.Conv2d):
            if leaving > entering and not all(size % 2 for size in module.kernel_size):
                raise _refusal(name, f"a convolution of even size {module.kernel_size}", finest, coarsest)
            changes[name] = _Change(2 ** max(entering - finest, 0), leaving > entering)
        elif leaving > entering:
            raise _refusal(name, f"{type(module).__name__}, no convolution", finest, coarsest)

    handles = [
        module.register_forward_hook(partial(look, f"{unit.name}.{name}" if name else unit.name))
        for unit in units
        for name, module in unit.shadow.named_modules()
    ]
    try:
        _run(units, in_channels)
    finally:
        for handle in handles:
            handle.remove()
    return changes


def _refusal(name: str, found: str, finest: int, coarsest: int) -> ValueError:
    return ValueError(
        f"output_stride {2**finest} needs maps that convolutions of odd size halve, found {name!r}: {found}; "
        f"at {2**coarsest} this backbone stays as it is"
    )


def _octave(rows: int) -> int:
    return round(math.log2(SIDE / rows))


def _both(units: Sequence[Unit], name: str) -> tuple[nn.Conv2d, nn.Conv2d]:
    """Return the convolution of the network and that of its copy."""
    unit = next(unit for unit in units if name == unit.name or name.startswith(f"{unit.name}."))
    inner = name[len(unit.name) :].lstrip(".")
    own, shadow = unit.module.get_submodule(inner), unit.shadow.get_submodule(inner)
    assert isinstance(own, nn.Conv2d)
    assert isinstance(shadow, nn.Conv2d)
    return own, shadow


def _apply(change: _Change, *convolutions: nn.Conv2d) -> None:
    for convolution in convolutions:
        if max(convolution.kernel_size) > 1:
            convolution.dilation = tuple(size * change.factor for size in convolution.dilation)
        if not isinstance(convolution.padding, str):
            convolution.padding = tuple(size * change.factor for size in convolution.padding)
        if change.stops:
            convolution.stride = (1, 1)


def _run(units: Sequence[Unit], in_channels: int) -> list[int]:
    """Run the copies one after the other and return the rows of what each returns."""
    features = torch.empty((1, in_channels, SIDE, SIDE), device="meta")
    rows = []
    with torch.no_grad():
        for unit in units:
            features = unit.shadow(features)
            rows.append(features.shape[2 if unit.tap.layout == "nchw" else 1])
    return rows
