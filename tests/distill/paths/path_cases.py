"""Students and teachers as the path tests see them: shapes and tensors, without any model."""

from __future__ import annotations

import importlib
import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import pytest
import torch
from detection_cases import CANVAS, HEAD_PATHS, detector_probe, detector_taps, num_locations, objects_of
from torch import Tensor, nn

from distill import paths
from distill.adapter import Adapter
from distill.batch import Batch, Samples
from distill.objects import Labelled
from distill.paths import Path
from distill.taps import OUTPUT, Head, Probe, Tap
from distill.taps.tap import Layout

Shapes = Sequence[tuple[int, int, int]]

SAMPLES = Samples(torch.arange(8), torch.arange(8) % 4)
"""The training set of the paths that need to know it."""

EXAMPLES: dict[str, dict[str, Any]] = {"FT": {"pretrain": 0.0}, "KTA": {"pretrain": 0.0}, "RegionLogits": {"number": 7}}
"""Constructor arguments of the paths that have required ones, or whose student learns nothing at first."""

MASK = torch.tensor(
    [
        [0, 0, 0, 0, 1, 1, 1, 1, 2],
        [0, 0, 0, 0, 1, 1, 1, 2, 2],
        [0, 0, 3, 255, 255, 255, 1, 2, 2],
        [0, 0, 3, 3, 1, 1, 2, 2, 2],
        [3, 3, 3, 3, 3, 2, 2, 2, 0],
        [3, 3, 3, 3, 3, 3, 2, 0, 0],
    ]
)
"""Four classes, and pixels whose class is not known."""

FEWEST_STAGES = {"FSP": 2}
"""Stages without which a path refuses to connect, where one is not enough."""


WAITING = {"FT": "paraphrasers.", "KTA": "paraphrasers."}
"""Where the names of those parameters begin that wait for another phase of the training, without a gradient."""


@dataclass
class Case:
    """A connected path and random activations for it."""

    path: Path
    student: dict[str, Tensor]
    teacher: dict[str, Tensor]

    def target(self) -> dict[str, Tensor]:
        return self.path.target(self.teacher)

    def losses(self) -> dict[str, Tensor]:
        with same_numbers():
            return self.path(self.student, self.target(), batch_of(len(self.student[OUTPUT]), self.path))

    def loss(self) -> Tensor:
        return torch.stack(list(self.losses().values())).sum()

    def learned(self) -> dict[str, nn.Parameter]:
        """Return the parameters that learn in this phase of the training, by name."""
        waiting = WAITING.get(type(self.path).__name__, "none wait")
        return {name: value for name, value in self.path.named_parameters() if not name.startswith(waiting)}


class Largest(torch.utils._python_dispatch.TorchDispatchMode):
    """Remembers the number of elements of the largest tensor that was made."""

    numel = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        result = func(*args, **(kwargs or {}))
        if isinstance(result, Tensor):
            self.numel = max(self.numel, result.numel())
        return result


@contextmanager
def same_numbers() -> Iterator[None]:
    """Let whatever a path draws be the same every time: path and reference see the same masks and negatives."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        yield


def batch_of(size: int, path: Path | None = None) -> Batch:
    """Return a batch of class 0; for a path that needs objects or masks, of images with the same ones each."""
    if path is not None and path.needs_labels == ("pixels",):
        return Batch(torch.zeros(size, 1, 6, 9), MASK.expand(size, -1, -1), torch.arange(size))
    if path is not None and path.needs_labels == ("objects",):
        return Batch(torch.zeros(size, 1, *CANVAS), objects_of(size), torch.arange(size))
    return Batch(torch.zeros(size, 1, 1, 1), torch.zeros(size, dtype=torch.int64), torch.arange(size))


def make_probe(
    prefix: str,
    shapes: Shapes,
    *,
    num_classes: int = 4,
    classifier: nn.Linear | nn.Conv2d | None = None,
    places: tuple[int, ...] = (),
    independent: bool = False,
    labelled: Labelled = "images",
) -> Probe:
    """Return what `probe` would say of a model with stages `<prefix>0`, `<prefix>1`, ... of these shapes.

    Its answers are at `places` such as `(height, width)`; each class may have a probability of its own.
    """
    stages = tuple(
        Tap(f"{prefix}{index}", channels, height, width, stride=2.0**index, layout="nchw")
        for index, (channels, height, width) in enumerate(shapes)
    )
    height, width = (*places, 1, 1)[:2]
    layout: Layout = "output" if places else "vector"
    output = Tap(OUTPUT, num_classes, height, width, stride=2.0 ** len(shapes), layout=layout)
    return Probe(
        taps={tap.name: tap for tap in (*stages, output)},
        stages=stages,
        last=stages[-1],
        output_shape=(num_classes, *places),
        classifier=classifier,
        labelled=labelled,
        head=Head(independent=independent),
    )


def connect(path: Path, student: Shapes, teacher: Shapes, classifier: nn.Linear | None = None) -> Path:
    """Connect a path; the classes are those of the teacher's classifier, or 4."""
    num_classes = 4 if classifier is None else classifier.out_features
    labelled = (*path.needs_labels, "images")[0]
    path.connect(
        make_probe("s", student, num_classes=num_classes, labelled=labelled),
        make_probe("t", teacher, num_classes=num_classes, classifier=classifier, labelled=labelled),
    )
    return path


def loss_of(path: Path, student: list[list[float]], teacher: list[list[float]]) -> Tensor:
    """Return the loss of a path between logits, given as rows; the label of every sample is class 0."""
    one, other = (torch.tensor(rows, dtype=torch.float64) for rows in (student, teacher))
    connect(path, [(1, 1, 1)], [(1, 1, 1)], nn.Linear(1, one.shape[1]))
    return path({OUTPUT: one}, path.target({OUTPUT: other}), batch_of(len(one)))["logits"]


def join(path: Path, shape: tuple[int, ...], *, independent: bool = False) -> Path:
    """Connect a path to two models with answers `[class, ...]` of this shape."""
    sides = [
        make_probe(side, [(1, 1, 1)], num_classes=shape[0], places=shape[1:], independent=independent) for side in "st"
    ]
    path.connect(*sides)
    return path


def dense_loss_of(path: Path, student: Tensor, teacher: Tensor, labels: Tensor | None = None) -> Tensor:
    """Return the loss of a connected path between logits; without labels all answers are of class 0."""
    if labels is None:
        labels = torch.zeros(len(student), *student.shape[2:], dtype=torch.int64)
    batch = Batch(torch.zeros(len(student), 1, 1, 1), labels, torch.arange(len(student)))
    loss: Tensor = path({OUTPUT: student}, path.target({OUTPUT: teacher}), batch)["logits"]
    return loss


def softmax(logits: Sequence[float]) -> list[float]:
    """Return the probabilities of one sample."""
    total = sum(math.exp(value) for value in logits)
    return [math.exp(value) / total for value in logits]


def identity_adapters(path: Path) -> Path:
    """Make every adapter the identity, for what a hand can compute."""
    path.eval()
    for module in path.modules():
        if isinstance(module, Adapter):
            nn.init.dirac_(module.convolution.weight)
            module.norm.eps = 0.0
    return path


def example(name: str) -> Path:
    """Return an instance of the registered path `name`."""
    try:
        return getattr(paths, name)(**EXAMPLES.get(name, {}))
    except TypeError as error:
        pytest.fail(f"{name} needs arguments: add them to EXAMPLES in tests/distill/paths/path_cases.py ({error})")


def make_case(
    name: str,
    *,
    student: Shapes = ((3, 4, 4), (5, 2, 2)),
    teacher: Shapes = ((4, 4, 4), (6, 2, 2)),
    batch_size: int = 3,
    dtype: torch.dtype = torch.float64,
    seed: int = 0,
) -> Case:
    """Return the registered path `name`, connected, with random activations of both models.

    Shapes of one stage are repeated for the paths that need several.
    """
    fewest = FEWEST_STAGES.get(name, 1)
    student, teacher = (side if len(side) >= fewest else (*side,) * fewest for side in (student, teacher))
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        path = example(name)
        if name in HEAD_PATHS:
            locations = num_locations(teacher)
            path.connect(detector_probe(student, locations), detector_probe(teacher, locations, seed=1))
        else:
            connect(path, student, teacher, nn.Linear(teacher[-1][0], 4))
        if path.needs_samples:
            path.meet(SAMPLES)
        for parameter in path.parameters():  # BatchNorm starts as 1 and 0: would hide that they are used
            parameter.data += 0.3 * torch.randn_like(parameter)
        if name in HEAD_PATHS:
            taps = [detector_taps(shapes, locations, batch_size) for shapes in (student, teacher)]
        else:
            taps = [_plain_taps(prefix, shapes, batch_size) for prefix, shapes in (("s", student), ("t", teacher))]
    student_taps, teacher_taps = ({key: value.to(dtype) for key, value in side.items()} for side in taps)
    return Case(path.to(torch.promote_types(dtype, torch.float32)), student_taps, teacher_taps)


def _plain_taps(prefix: str, shapes: Shapes, batch_size: int) -> dict[str, Tensor]:
    """Return random logits and maps, float64."""
    return {
        OUTPUT: 2 * torch.randn(batch_size, 4, dtype=torch.float64),
        **{
            f"{prefix}{index}": torch.randn(batch_size, *shape, dtype=torch.float64)
            for index, shape in enumerate(shapes)
        },
    }


def still_case(name: str, **options: Any) -> Case:
    """Return a case whose path says the same of the same batch twice: one that remembers has met it, and evaluates."""
    case = make_case(name, **options)
    if case.path.needs_samples:
        case.losses()
        case.path.eval()
    return case


def module_of(name: str) -> ModuleType:
    """Return the test module of the registered path `name`, which holds its goldens and its reference."""
    module = f"test_{getattr(paths, name).__module__.rpartition('.')[2]}"
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError:
        pytest.fail(
            f"{name} has no tests: add tests/distill/paths/{module}.py with GOLDENS (hand-derived values, functions of "
            "the class) and reference(path, student, teacher) (the equation in plain loops)"
        )
