"""The tables of all paths: what they are, read off the classes, and what they cost, read off the saved benchmark.

``python docs/path_table.py`` prints them, ``--write`` puts them in place. A test compares ``docs/paths.md`` with this.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import tables
import torch
from torch import nn
from torchvision.models import resnet18, resnet34

from distill import paths
from distill.batch import Samples
from distill.models import FCN, CifarResNet18, CifarResNet50, DistributionFCOS, FasterRCNN, ResNet8, ResNet8x4
from distill.paths.base import Path as KnowledgePath
from distill.taps import INPUT, LEVEL, OUTPUT, Probe, is_output, probe
from distill.tasks import Detection, SemanticSegmentation

DOCUMENT = Path(__file__).parent / "paths.md"
COSTS = Path(__file__).parents[1] / "benchmarks" / "results" / "paths.json"
GENERATOR = "docs/path_table.py"
HEADER = ("path", "what it matches", "reads", "below 0", "batch", "target, small", "target, large", "learns", "source")
DETECTOR_PATHS: dict[str, Callable[..., nn.Module]] = {
    **dict.fromkeys(("BoxOffsets", "FGD", "LD"), DistributionFCOS),
    "RegionLogits": FasterRCNN,
}
"""Paths for object detection, and the heads of the detectors that they are shown with."""


MASK_PATHS = ("IFVD",)
"""Paths for semantic segmentation."""


@cache
def _small() -> tuple[Probe, Probe]:
    """ResNet-50 to ResNet-18 on 32x32 images, 100 classes."""
    return _probe(CifarResNet18(num_classes=100), 32), _probe(CifarResNet50(num_classes=100), 32)


@cache
def _large() -> tuple[Probe, Probe]:
    """ResNet-34 to ResNet-18 on 224x224 images, 1,000 classes."""
    return _probe(resnet18(), 224), _probe(resnet34(), 224)


def _probe(model: nn.Module, side: int) -> Probe:
    with torch.device("meta"):
        return probe(model.to("meta"), torch.empty(2, 3, side, side), lambda output: output)


@cache
def _small_detectors(head: Callable[..., nn.Module]) -> tuple[Probe, Probe]:
    """A wide ResNet-8 to a ResNet-8, with pyramids of 64 channels, on 128x128 images, 21 classes."""
    options = {"num_classes": 21, "width": 64, "strides": (4, 8, 16, 32)}
    student, teacher = (head(backbone(num_classes=2), **options) for backbone in (ResNet8, ResNet8x4))
    return _detector(student, 128), _detector(teacher, 128)


@cache
def _large_detectors(head: Callable[..., nn.Module]) -> tuple[Probe, Probe]:
    """ResNet-34 to ResNet-18, with pyramids of 256 channels, on 384x384 images, 21 classes."""
    student, teacher = (head(backbone(), num_classes=21, width=256) for backbone in (resnet18, resnet34))
    return _detector(student, 384), _detector(teacher, 384)


def _detector(model: nn.Module, side: int) -> Probe:
    return Detection().probe(model, torch.zeros(2, 3, side, side))


@cache
def _small_masks() -> tuple[Probe, Probe]:
    """ResNet-8 and a wide one behind fully convolutional heads, on 128x128 images, 21 classes."""
    student, teacher = (FCN(backbone(num_classes=2), num_classes=21) for backbone in (ResNet8, ResNet8x4))
    return _masks(student, 128), _masks(teacher, 128)


@cache
def _large_masks() -> tuple[Probe, Probe]:
    """ResNet-34 to ResNet-18 behind fully convolutional heads, on 384x384 images, 21 classes."""
    student, teacher = (FCN(backbone(), num_classes=21) for backbone in (resnet18, resnet34))
    return _masks(student, 384), _masks(teacher, 384)


def _masks(model: nn.Module, side: int) -> Probe:
    with torch.device("meta"):
        return SemanticSegmentation().probe(model.to("meta"), torch.empty(2, 3, side, side))


def _pairs(name: str) -> tuple[tuple[Probe, Probe], tuple[Probe, Probe]]:
    """Return the small and the large pair of models that a path is shown with."""
    if name in DETECTOR_PATHS:
        head = DETECTOR_PATHS[name]
        return _small_detectors(head), _large_detectors(head)
    if name in MASK_PATHS:
        return _small_masks(), _large_masks()
    return _small(), _large()


def _connected(name: str, pair: tuple[Probe, Probe]) -> KnowledgePath:
    path: KnowledgePath = getattr(paths, name)()
    with torch.device("meta"):
        path.connect(*pair)
        if path.needs_samples:
            path.meet(Samples(torch.arange(2, device="cpu"), torch.arange(2, device="cpu")))
    return path


def _reads(path: KnowledgePath, student: Probe) -> str:
    names = [pair.student for pair in path.pairs]
    before = any(name.endswith(INPUT) for pair in path.pairs for name in (pair.student, pair.teacher))
    if names == [OUTPUT]:
        return "logits"
    if names[0].startswith(LEVEL):
        return "all levels"
    if is_output(names[0]):
        return names[0][1:].replace("_", " ")
    where = "last stage" if [pair.layer for pair in path.pairs] == [student.last.name] else "a middle stage"
    return (where if len(names) == 1 else "all stages") + (", before the activation" if before else "")


def _bytes(path: KnowledgePath, teacher: Probe) -> str:
    """Return the size of a sample's target in half precision, as a reader takes it in."""
    if not path.storable:
        return "asked live"
    taps = {pair.teacher: torch.zeros(1, *_shape(teacher, pair.teacher)) for pair in path.pairs}
    target = path.target(taps)
    size = sum(value.numel() * (2 if value.is_floating_point() else value.element_size()) for value in target.values())
    return f"{size} B" if size < 1000 else f"{size / 1000:.3g} kB" if size < 1e6 else f"{size / 1e6:.3g} MB"


def _shape(probe: Probe, tap: str) -> tuple[int, ...]:
    if tap == OUTPUT:
        return probe.output_shape
    return probe.output_shapes[tap] if is_output(tap) else probe[tap].shape


def _learns(path: KnowledgePath) -> str:
    count = sum(parameter.numel() for parameter in path.parameters())
    return f"{count / 1e6:.2f} M" if count >= 1e4 else str(count or "-")


def rows() -> list[tuple[str, ...]]:
    """Return a row a path, in the order of ``HEADER``."""
    found = []
    for name in sorted(paths.__all__, key=str.lower):
        kind = getattr(paths, name)
        pairs = _pairs(name)
        small, large = (_connected(name, pair) for pair in pairs)
        found.append(
            (
                f"`{name}`",
                tables.first_sentence(kind),
                _reads(large, pairs[1][0]),
                "" if kind.non_negative else "yes",
                "yes" if kind.batch_dependent else "",
                _bytes(small, pairs[0][1]),
                _bytes(large, pairs[1][1]),
                _learns(large),
                tables.source(kind),
            )
        )
    return found


def table() -> str:
    """Return what the paths are, in Markdown."""
    return tables.markdown([HEADER, *rows()])


def costs() -> str:
    """Return what the paths cost, in Markdown: a table a pair of models, after a line that says how it was measured."""
    saved = json.loads(COSTS.read_text(encoding="utf-8"))
    setting = saved["setting"]
    parts = []
    for pair, measured in saved["pairs"].items():
        rounds = next(iter(measured.values()))["n"]
        header = ("path", "target ms", "forward ms", "backward ms", "peak of a step, MiB", "torchdistill's time / ours")
        how = f"batches of {setting['batch']}, {setting['threads']} threads of a CPU, medians of n = {rounds}"
        lines = [_cost(name, row) for name, row in measured.items()]
        parts.append(f"{pair}, {how}:\n\n{tables.markdown([header, *lines])}")
    return "\n\n".join(parts)


def _cost(name: str, row: dict[str, Any]) -> tuple[str, ...]:
    figures = [_figure(row[key]) for key in ("target_ms", "forward_ms", "backward_ms", "step_peak_mib")]
    rival = f"{row['torchdistill']:.2f} ± {row['torchdistill_sd']:.2f}" if "torchdistill" in row else ""
    return (f"`{name}`", *figures, rival)


def _figure(value: float) -> str:
    """Return a number with three digits that mean something, and without an exponent."""
    return f"{float(f'{value:.3g}'):g}"


def document() -> str:
    """Return ``docs/paths.md`` with the tables as classes and measurements have them now."""
    return tables.document(DOCUMENT, {f"{GENERATOR}: what they are": table, f"{GENERATOR}: what they cost": costs})


if __name__ == "__main__":
    tables.main(DOCUMENT, document, lambda: f"{table()}\n\n{costs()}")
