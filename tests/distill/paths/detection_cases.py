"""Detectors as the path tests see them: shapes, parts of an output and objects, without any model."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from distill.objects import Objects
from distill.taps import LEVEL, OUTPUT, Head, LocationHead, Probe, RegionHead, Tap

NUM_CLASSES = 4
BINS = 3
CANVAS = (16, 24)
"""Height and width of the images."""

HEAD_PATHS = {"BoxOffsets", "LD", "RegionLogits"}
"""Paths between the heads of two detectors."""

BOXES = [[1.0, 2.0, 9.0, 7.0], [4.0, 4.0, 20.0, 15.0], [0.0, 0.0, 24.0, 16.0]]
"""Two objects that overlap, and an ignored one over the whole image."""


def objects_of(size: int) -> Objects:
    """Return the same three objects for each image; the last one is ignored."""
    image = torch.tensor(BOXES), torch.tensor([1, 2, 3]), torch.tensor([False, False, True])
    return Objects.of([image] * size)


class PlainRegions(RegionHead):
    """A second stage that finds five regions and says of each what its corners and the mean of all levels tell."""

    num_classes = NUM_CLASSES

    def __init__(self, seed: int) -> None:
        generator = torch.Generator().manual_seed(seed)
        self.by_map = torch.randn(NUM_CLASSES, 5, generator=generator, dtype=torch.float64)
        self.by_corner = torch.randn(NUM_CLASSES, 4, generator=generator, dtype=torch.float64) / 10

    def propose(self, outputs: Mapping[str, Tensor], number: int) -> Tensor:
        first = outputs[":boxes"][:, 0, 0].sign() / 4  # [batch]
        corners = torch.arange(number, device=first.device)[None, :, None] + torch.tensor([0.0, 1.0, 5.3, 3.7])
        regions = corners.to(first) + first[:, None, None]
        return torch.where(torch.arange(number)[None, :, None] < 5, regions, 0.0)

    def describe(self, outputs: Mapping[str, Tensor], regions: Tensor) -> tuple[Tensor, Tensor]:
        levels = [level for name, level in outputs.items() if name.startswith(LEVEL)]
        seen = torch.stack([level.mean(dim=(1, 2, 3)) for level in levels]).sum(dim=0)[:, None, None, None]
        by_map, by_corner = self.by_map.to(seen), self.by_corner.to(seen)
        said = seen * by_map + torch.nn.functional.pad((regions[:, :, None] * by_corner), (1, 0), value=0.0)
        said = said + regions.mean(dim=2)[:, :, None, None] * by_map / 10
        return said[..., 0], said[..., 1:]  # [batch, region, class], [batch, region, class, 4]


class PlainLocations(LocationHead):
    """Locations in rows of four; those whose centre lies in an object are trained on it."""

    def __init__(self, number: int) -> None:
        place = torch.arange(number)
        centres = torch.stack([4.0 * (place % 4) + 2, 3.0 * (place // 4) + 1.5], dim=1)
        self.boxes = torch.cat([centres - 0.5, centres + 0.5], dim=1)

    def anchors(self, device: torch.device) -> Tensor:
        return self.boxes.to(device)

    def positive(self, objects: Objects) -> Tensor:
        centres = (self.boxes[:, None, :2] + self.boxes[:, None, 2:]) / 2
        return torch.stack(
            [
                ((centres > each["boxes"][:, :2]) & (centres < each["boxes"][:, 2:])).all(dim=2).any(dim=1)
                for each in objects.trained()
            ]
        )


def num_locations(shapes: Sequence[tuple[int, int, int]]) -> int:
    """Return how many positions levels of these shapes have together."""
    return sum(height * width for _, height, width in shapes)


def detector_probe(
    shapes: Sequence[tuple[int, int, int]], locations: int, *, independent: bool = True, seed: int = 0
) -> Probe:
    """Return what `probe` would say of a detector with levels of these shapes `[channel, height, width]`."""
    levels = tuple(
        Tap(f"{LEVEL}{index}", channels, height, width, stride=4 * 2.0**index, layout="output")
        for index, (channels, height, width) in enumerate(shapes)
    )
    parts = {":boxes": (4, locations), ":box_distribution": (4 * BINS, locations), OUTPUT: (NUM_CLASSES, locations)}
    taps = {name: Tap(name, shape[0], shape[1], 1, 16.0, "output") for name, shape in parts.items()}
    return Probe(
        taps={**{level.name: level for level in levels}, **taps},
        stages=levels,
        last=levels[-1],
        output_shape=parts[OUTPUT],
        classifier=None,
        output_shapes={**{level.name: level.shape for level in levels}, **parts},
        head=Head(independent, PlainRegions(seed), PlainLocations(locations)),
        labelled="objects",
    )


def detector_taps(shapes: Sequence[tuple[int, int, int]], locations: int, batch_size: int) -> dict[str, Tensor]:
    """Return random values of all that :func:`detector_probe` promises, float64."""
    found = {
        f"{LEVEL}{index}": torch.randn(batch_size, *shape, dtype=torch.float64) for index, shape in enumerate(shapes)
    }
    for name, channels in ((":boxes", 4), (":box_distribution", 4 * BINS), (OUTPUT, NUM_CLASSES)):
        found[name] = 2 * torch.randn(batch_size, channels, locations, dtype=torch.float64)
    return found


def naive_softmax(logits: Sequence[float]) -> list[float]:
    """Return probabilities, however large the logits."""
    powers = [math.exp(value - max(logits)) for value in logits]
    return [power / sum(powers) for power in powers]


def naive_smooth(one: float, other: float) -> float:
    """Return the smooth distance of two numbers."""
    distance = abs(one - other)
    return distance**2 / 2 if distance < 1 else distance - 0.5
