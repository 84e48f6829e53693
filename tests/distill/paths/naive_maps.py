"""What the references of the paths between maps share: plain loops over `[channel][row][column]`."""

from __future__ import annotations

import math
from collections.abc import Sequence

from torch import Tensor

from distill.paths import Path

Grid = Sequence[Sequence[float]]


def samples(path: Path, student: dict[str, Tensor], teacher: dict[str, Tensor]):
    """Return, by layer, the maps of both models sample by sample, as nested lists."""
    return {
        pair.layer: list(zip(student[pair.student].tolist(), teacher[pair.teacher].tolist(), strict=True))
        for pair in path.pairs
    }


def pooled_alike(one: Sequence[Grid], other: Sequence[Grid]) -> tuple[list[list[list[float]]], ...]:
    """Bring the channels of both maps to the smaller height and width, by means over windows."""
    height, width = min(len(one[0]), len(other[0])), min(len(one[0][0]), len(other[0][0]))
    return tuple([pooled(grid, height, width) for grid in maps] for maps in (one, other))


def pooled(grid: Grid, height: int, width: int) -> list[list[float]]:
    """Return the mean of each window; windows of sizes that do not divide overlap by one."""
    windows = [
        [
            [grid[y][x] for y in _window(row, len(grid), height) for x in _window(column, len(grid[0]), width)]
            for column in range(width)
        ]
        for row in range(height)
    ]
    return [[sum(window) / len(window) for window in line] for line in windows]


def _window(index: int, size: int, cells: int) -> range:
    return range(index * size // cells, -(-(index + 1) * size // cells))


def flat(grid: Grid) -> list[float]:
    return [value for row in grid for value in row]


def dot(one: Sequence[float], other: Sequence[float]) -> float:
    return sum(a * b for a, b in zip(one, other, strict=True))


def unit_attention(one: Sequence[Grid], other: Sequence[Grid]) -> list[list[float]]:
    """Return the attention maps of both models at one size, of unit length but for the 1e-6, flattened."""
    energies = [
        [[[sum(channel[y][x] ** 2 for channel in maps) for x in range(len(maps[0][0]))] for y in range(len(maps[0]))]]
        for maps in (one, other)
    ]
    found = []
    for maps in pooled_alike(*energies):
        values = flat(maps[0])
        length = math.sqrt(dot(values, values)) + 1e-6
        found.append([value / length for value in values])
    return found
