"""The main line of a classification network: units that follow each other from the image to its last map."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from distill.taps.activation import record
from distill.taps.reader import call
from distill.taps.tap import Tap
from distill.taps.trunk import Trunk

SIDE = 224
"""Rows and columns of the image that a network is looked at with; Vision Transformers take no other."""


@dataclass(frozen=True, eq=False)
class Unit:
    """A module of the main line.

    Attributes:
        name: in the network.
        module: of the network itself.
        shadow: its copy on the meta device, where it can be run at no cost.
        tap: the shape of what it returns.
    """

    name: str
    module: nn.Module
    shadow: nn.Module
    tap: Tap


def chain(model: nn.Module, *, in_channels: int) -> list[Unit]:
    """Return the units of a network's main line, and make sure that they are all there is to it.

    The network is run as a copy on the meta device, so that weights, statistics and random numbers stay as they are.
    Each unit has to run once, and to be given the very tensor that the one before returned.

    Args:
        model: a classification network that takes images of 224x224.
        in_channels: channels of the images.

    Raises:
        ValueError: the network cannot be run, or its units do not follow each other.
    """
    kind = type(model).__name__
    first = next((module for module in model.modules() if isinstance(module, nn.Conv2d)), None)
    if first is not None and first.in_channels != in_channels:
        raise ValueError(f"backbone {kind} takes {first.in_channels} channels, but the images have {in_channels}")
    shadow = _on_meta(model)
    sample = torch.empty((2, in_channels, SIDE, SIDE), device="meta")
    try:
        activations, _, _, _ = record(shadow, sample, _logits, call)
        logits = call(shadow.eval(), sample)
    except Exception as error:  # a network of the user's own may raise anything
        reason = str(error).partition("\n")[0]
        raise ValueError(
            f"backbone must be a classification network for images {list(sample.shape[1:])}, found {kind}: {reason}"
        ) from error
    line = Trunk(activations, num_classes=logits.shape[1]).line()
    units = [
        Unit(unit.name, model.get_submodule(unit.name), unit.module, unit.tap) for unit in line if unit.tap is not None
    ]
    broken = _first_break(shadow, sample, units) if units else "it has no maps"
    if broken:
        raise ValueError(f"backbone must be a chain of modules from the image to its last map, found {kind}: {broken}")
    return units


def _on_meta(model: nn.Module) -> nn.Module:
    """Copy a network without its numbers."""
    memo: dict[int, Any] = {id(value): nn.Parameter(value.detach().to("meta")) for value in model.parameters()}
    return copy.deepcopy(model, memo | {id(value): value.to("meta") for value in model.buffers()})


def _logits(output: Any) -> Tensor:
    if not isinstance(output, Tensor):
        raise TypeError(f"it returns {type(output).__name__}, not class scores")
    return output


def _first_break(shadow: nn.Module, sample: Tensor, units: list[Unit]) -> str:
    """Run the copy once and say where a unit is given something else than the one before it returned."""
    seen: list[tuple[str, int, Tensor, int]] = []  # name, inputs, the first input and its version
    returned: list[tuple[Tensor, int]] = [(sample, sample._version)]

    def before(name: str, inputs: tuple[Any, ...]) -> None:
        seen.append((name, len(inputs), inputs[0], inputs[0]._version))

    with _hooked(units, before, returned), torch.no_grad():
        call(shadow.eval(), sample)
    names = [name for name, *_ in seen]
    wanted = [unit.name for unit in units]
    if names != wanted:
        place = next((name for name, unit in zip(names, wanted, strict=False) if name != unit), names[-1])
        return f"{place!r} does not run once, in the order of the chain"
    for previous, (name, num_inputs, tensor, version), (before_it, its_version) in zip(
        ["the image", *map(repr, wanted)], seen, returned, strict=False
    ):
        if num_inputs != 1 or tensor is not before_it or version != its_version:
            return f"what enters {name!r} is not {previous if previous == 'the image' else f'what {previous} returns'}"
    return ""


@contextmanager
def _hooked(units: list[Unit], before: Any, returned: list[tuple[Tensor, int]]) -> Iterator[None]:
    handles = []
    for unit in units:
        handles.append(unit.shadow.register_forward_pre_hook(lambda _, inputs, name=unit.name: before(name, inputs)))
        handles.append(unit.shadow.register_forward_hook(lambda *step: returned.append((step[2], step[2]._version))))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
