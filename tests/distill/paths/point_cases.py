"""Samples as points: feature maps whose means over positions are what a hand-derived number is about."""

from __future__ import annotations

import torch
from path_cases import batch_of, connect
from torch import Tensor

from distill.paths import Path

Points = list[list[float]]


def maps_of(points: Points) -> Tensor:
    """Return `[sample, channel, 1, 2]` that differ from position to position, and whose means are `points`."""
    means = torch.tensor(points, dtype=torch.float64)[:, :, None, None]
    return means + torch.tensor([1.5, -1.5], dtype=torch.float64)


def connected(path: Path, student: Points, teacher: Points) -> Path:
    """Connect a path to models with one map, as wide as the points."""
    return connect(path, [(len(student[0]), 1, 2)], [(len(teacher[0]), 1, 2)]).double()


def loss_between(path: Path, student: Points, teacher: Points) -> Tensor:
    """Return the loss of a fresh path between samples with these pooled features."""
    return loss_of_connected(connected(path, student, teacher), maps_of(student), maps_of(teacher))


def loss_of_connected(path: Path, student: Tensor, teacher: Tensor) -> Tensor:
    """Return the loss of a path that reads the taps `s0` and `t0`."""
    return path({"s0": student}, path.target({"t0": teacher}), batch_of(len(student)))["s0"]


def slopes(path: Path, student: Tensor, teacher: Tensor) -> tuple[float, float]:
    """Return the gradient along a random direction, and the difference of the losses at both sides over the way."""
    direction = torch.randn(student.shape, generator=torch.Generator().manual_seed(7), dtype=student.dtype)
    start = student.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(loss_of_connected(path, start, teacher), [start])
    ahead, behind = (loss_of_connected(path, student + step * direction, teacher).item() for step in (1e-5, -1e-5))
    return (gradient * direction).sum().item(), (ahead - behind) / 2e-5


def means(maps: Tensor) -> Points:
    """Return the means over positions of `[sample, channel, height, width]` in plain sums."""
    return [
        [sum(sum(row) for row in channel) / (len(channel) * len(channel[0])) for channel in sample]
        for sample in maps.double().tolist()
    ]


def inner(one: list[float], other: list[float]) -> float:
    return sum(a * b for a, b in zip(one, other, strict=True))
