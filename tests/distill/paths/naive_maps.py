"""What the references of the paths between maps share: loops over `[channel][row][column]`, and batches of them."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from typing import Any

from torch import Tensor, nn

from distill.adapter import Adapter
from distill.paths import Path

Grid = Sequence[Sequence[float]]
Maps = list[list[list[list[float]]]]
"""`[batch][channel][row][column]`."""


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


def naive_adapter(adapter: Adapter, maps: Tensor) -> Maps:
    """Compute convolution and BatchNorm in plain loops; `[batch][channel][row][column]`."""
    return naive_norm(adapter.norm, naive_convolution(adapter.convolution, maps.double().tolist()))


def naive_convolution(convolution: nn.Conv2d | nn.ConvTranspose2d, maps: Maps) -> Maps:
    """Compute a convolution of stride 1 in plain loops, output by output; a transposed one is flipped for it."""
    weights = convolution.weight.double()
    if isinstance(convolution, nn.ConvTranspose2d):
        weights = weights.transpose(0, 1).flip(2, 3)
    kernels = weights.tolist()
    reach = convolution.padding[0]
    assert convolution.kernel_size == (2 * reach + 1, 2 * reach + 1)
    biases = [0.0] * len(kernels) if convolution.bias is None else convolution.bias.tolist()

    def output(sample: Any, kernel: Any, bias: float, row: int, column: int) -> float:
        total = bias
        for plane, weight in zip(sample, kernel, strict=True):
            for y in range(max(0, row - reach), min(len(plane), row + reach + 1)):
                for x in range(max(0, column - reach), min(len(plane[0]), column + reach + 1)):
                    total += weight[y - row + reach][x - column + reach] * plane[y][x]
        return total

    return [
        [
            [[output(sample, kernel, bias, r, c) for c in range(len(sample[0][0]))] for r in range(len(sample[0]))]
            for kernel, bias in zip(kernels, biases, strict=True)
        ]
        for sample in maps
    ]


def naive_norm(norm: nn.BatchNorm2d, maps: Maps) -> Maps:
    """Compute BatchNorm in plain loops, by the batch in training mode, by its running statistics otherwise."""
    result: Maps = [[] for _ in maps]
    for channel, (scale, shift) in enumerate(zip(norm.weight.tolist(), norm.bias.tolist(), strict=True)):
        values = [value for sample in maps for row in sample[channel] for value in row]
        mean = sum(values) / len(values)
        variance = sum((value - mean) ** 2 for value in values) / len(values)
        if not norm.training:
            mean, variance = norm.running_mean[channel].item(), norm.running_var[channel].item()
        factor = scale / (variance + norm.eps) ** 0.5
        for sample, done in zip(maps, result, strict=True):
            done.append([[factor * (value - mean) + shift for value in row] for row in sample[channel]])
    return result


def naive_layers(layers: nn.Module, maps: Maps) -> Maps:
    """Compute a chain of convolutions, BatchNorm and (leaky) ReLU in plain loops."""
    for layer in layers.children():
        if isinstance(layer, nn.BatchNorm2d):
            maps = naive_norm(layer, maps)
        elif isinstance(layer, nn.ReLU | nn.LeakyReLU):
            slope = layer.negative_slope if isinstance(layer, nn.LeakyReLU) else 0.0
            maps = [[[[v if v > 0 else slope * v for v in row] for row in plane] for plane in s] for s in maps]
        else:
            maps = naive_convolution(layer, maps)
    return maps


def naive_pool(maps: Maps, height: int, width: int) -> Maps:
    """Average windows in plain loops; a window that is smaller than a position of the result repeats."""
    return [[pooled(plane, height, width) for plane in sample] for sample in maps]


def naive_pooled_alike(one: Maps, other: Maps) -> tuple[Maps, Maps]:
    """Average both to the smaller height and width."""
    height, width = min(len(one[0][0]), len(other[0][0])), min(len(one[0][0][0]), len(other[0][0][0]))
    return naive_pool(one, height, width), naive_pool(other, height, width)


def positions(maps: Maps) -> Iterator[tuple[int, int, int, int]]:
    """Return every index of the maps: sample, channel, row, column."""
    return itertools.product(range(len(maps)), range(len(maps[0])), range(len(maps[0][0])), range(len(maps[0][0][0])))
