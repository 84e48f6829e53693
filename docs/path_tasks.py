"""The table of what each path reads in each task: every path is connected to models of the task, or refuses them.

``python docs/path_tasks.py`` prints it, ``--write`` puts it in place. A test compares ``docs/paths.md`` with this.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path

import tables
import torch
from torchvision import models

from distill import paths
from distill.batch import Samples
from distill.models import FCN, LRASPP, DistributionFCOS, FasterRCNN, RetinaNet
from distill.paths.base import Path as KnowledgePath
from distill.taps import INPUT, LEVEL, OUTPUT, Probe, is_output
from distill.tasks import Classification, Detection, SemanticSegmentation, Task

DOCUMENT = Path(__file__).parent / "paths.md"
GENERATOR = "docs/path_tasks.py"
SAMPLE_SIZE = 2
DENSE_SIDE = 512
DETECTOR_SIDE = 640
IMAGE_SIDE = 224


def _probe(task: Task, make: Callable[[], torch.nn.Module], side: int) -> Probe:
    with torch.device("meta"):
        return task.probe(make(), torch.empty(SAMPLE_SIZE, 3, side, side))


@cache
def _pairs() -> dict[str, tuple[Probe, Probe]]:
    """Return student and teacher of each column."""
    segmentation, detection = SemanticSegmentation(), Detection()
    resnet18, resnet50 = models.resnet18, models.resnet50
    return {
        "classification": (
            _probe(Classification(), resnet18, IMAGE_SIDE),
            _probe(Classification(), resnet50, IMAGE_SIDE),
        ),
        "segmentation": (
            _probe(segmentation, lambda: LRASPP(models.mobilenet_v3_large(), num_classes=21), DENSE_SIDE),
            _probe(segmentation, lambda: FCN(resnet50(), num_classes=21), DENSE_SIDE),
        ),
        "detection, one family": (
            _probe(detection, lambda: DistributionFCOS(resnet18(), num_classes=81, width=256), DETECTOR_SIDE),
            _probe(detection, lambda: DistributionFCOS(resnet50(), num_classes=81, width=256), DETECTOR_SIDE),
        ),
        "detection, two stages": (
            _probe(detection, lambda: FasterRCNN(resnet18(), num_classes=81, width=256), DETECTOR_SIDE),
            _probe(detection, lambda: FasterRCNN(resnet50(), num_classes=81, width=256), DETECTOR_SIDE),
        ),
        "detection, two families": (
            _probe(detection, lambda: RetinaNet(resnet18(), num_classes=81, width=256), DETECTOR_SIDE),
            _probe(detection, lambda: FasterRCNN(resnet50(), num_classes=81, width=256), DETECTOR_SIDE),
        ),
    }


def _cell(name: str, pair: tuple[Probe, Probe]) -> str:
    """Return what a path reads of the student, or a dash where it refuses the models."""
    path: KnowledgePath = getattr(paths, name)()
    try:
        with torch.device("meta"):
            path.connect(*pair)
        if path.needs_samples:
            path.meet(Samples(torch.arange(SAMPLE_SIZE), torch.arange(SAMPLE_SIZE)))
    except ValueError:
        return "-"
    return _reads(path, pair[0])


def _reads(path: KnowledgePath, student: Probe) -> str:
    names = list(dict.fromkeys(pair.student for pair in path.pairs))
    if names == [OUTPUT]:
        return "logits"
    if all(name.startswith(LEVEL) for name in names):
        return "coarsest level" if names == [student.last.name] else f"{len(names)} levels"
    if is_output(names[0]):
        return names[0].removeprefix(":").replace("_", " ")
    before = ", before the activation" if any(INPUT in name for name in names) else ""
    if len(names) > 1:
        return f"{len(names)} stages{before}"
    return ("last stage" if path.pairs[0].layer == student.last.name else "a middle stage") + before


def table() -> str:
    """Return what each path reads in each task, in Markdown."""
    pairs = _pairs()
    rows = [
        (f"`{name}`", *(_cell(name, pair) for pair in pairs.values())) for name in sorted(paths.__all__, key=str.lower)
    ]
    return tables.markdown([("path", *pairs), *rows])


def document() -> str:
    """Return ``docs/paths.md`` with the table as the classes have it now."""
    return tables.document(DOCUMENT, {GENERATOR: table})


if __name__ == "__main__":
    tables.main(DOCUMENT, document, table)
