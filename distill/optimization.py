"""Parameter groups, and optimisers and schedules by option."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any, Protocol

import torch
from torch.optim.lr_scheduler import LRScheduler

from distill.distiller import Distiller

ParameterGroups = list[dict[str, Any]]
MakeOptimizer = Callable[[ParameterGroups], torch.optim.Optimizer]


class MakeScheduler(Protocol):
    """Makes a learning rate schedule once the length of the training is known."""

    def __call__(self, optimizer: torch.optim.Optimizer, *, epochs: int, total_steps: int) -> LRScheduler: ...


def parameter_groups(distiller: Distiller) -> ParameterGroups:
    """Return student and paths as one group, the aggregator's parameters as another with its own options."""
    model = [*distiller.student.parameters(), *distiller.paths.parameters()]
    groups: ParameterGroups = [{"params": [parameter for parameter in model if parameter.requires_grad]}]
    learned = list(distiller.aggregator.parameters())
    if learned:
        groups.append({"params": learned, **distiller.aggregator.parameter_options()})
    return groups


def optimizer_maker(kind: Callable[..., torch.optim.Optimizer], options: Mapping[str, Any]) -> MakeOptimizer:
    """Return a maker of ``kind`` with fixed options."""

    def make(groups: ParameterGroups) -> torch.optim.Optimizer:
        return kind(groups, **options)

    return make


def scheduler_maker(kind: Callable[..., LRScheduler], options: Mapping[str, Any], *, step: str) -> MakeScheduler:
    """Return a maker of ``kind``; what it needs to know of the training's length is filled in.

    ``total_steps``, ``total_iters`` and ``T_max`` default to the number of times that the schedule will advance. A
    schedule with ``max_lr`` (OneCycleLR) overwrites every group's rate by it; here each group keeps its ratio to the
    first, so that an aggregator's own learning rate stays its own.

    Args:
        kind: a class of ``torch.optim.lr_scheduler``.
        options: its options.
        step: ``batch`` or ``epoch``: how often the schedule advances.
    """

    def make(optimizer: torch.optim.Optimizer, *, epochs: int, total_steps: int) -> LRScheduler:
        length = total_steps if step == "batch" else epochs
        known = inspect.signature(kind).parameters
        filled = {name: length for name in LENGTHS if name in known} | dict(options)
        if "epochs" in options or "steps_per_epoch" in options:
            filled.pop("total_steps", None)
        if isinstance(filled.get("max_lr"), int | float):
            first = optimizer.param_groups[0]["lr"]
            filled["max_lr"] = [filled["max_lr"] * group["lr"] / first for group in optimizer.param_groups]
        return kind(optimizer, **filled)

    return make


LENGTHS = ("total_steps", "T_max", "total_iters")
"""Names under which torch's schedules take their own length."""
