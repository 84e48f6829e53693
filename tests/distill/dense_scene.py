"""Small dense models and annotated images that are augmented: everything that a whole training takes."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import torch
from detector_samples import make
from torch import nn

from distill import paths
from distill.aggregators import Aggregator, Equal
from distill.batch import Samples
from distill.data import Loader, Subset
from distill.data.annotated_memory import AnnotatedMemory
from distill.data.annotation import Annotation, Boxes, Mask
from distill.data.loaders import Loaders
from distill.data.transforms import ColorJitter, EachImage, RandomCrop, RandomHorizontalFlip, RandomScaleCrop
from distill.distiller import Distiller
from distill.host import LocalHost
from distill.identity import state_digest
from distill.late import v2
from distill.models import FCN, ResNet8
from distill.paths import Path
from distill.targets import LocalShards, StoredTargets, TargetSource, TargetStore
from distill.tasks import Detection, SemanticSegmentation, Task
from distill.teacher import Teacher
from distill.trainer import Recipe, Trainer

CPU = torch.device("cpu")
HEIGHT, WIDTH = 32, 48
NUM_IMAGES = 26
NUM_TRAIN, NUM_VALIDATION = 14, 5
CLASSES = ("__background__", "square", "wide", "tall")
SEGMENTATION = "FCN"
DETECTORS = ("RetinaNet", "FCOS", "DistributionFCOS", "SSD", "FasterRCNN")
FAMILIES = (SEGMENTATION, *DETECTORS)


def source_of(family: str) -> AnnotatedMemory:
    """Return noise with bright rectangles; every third image has none, and the first of each an ignored one."""
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 90, (NUM_IMAGES, 3, HEIGHT, WIDTH), generator=generator)
    annotations: list[Annotation] = []
    for number, image in enumerate(images):
        mask = torch.zeros(HEIGHT, WIDTH, dtype=torch.uint8)
        boxes = []
        for label, (tall, wide) in enumerate(((10, 10), (8, 18), (18, 8)), start=1) if number % 3 else ():
            top = int(torch.randint(HEIGHT - tall, (), generator=generator))
            left = int(torch.randint(WIDTH - wide, (), generator=generator))
            image[label - 1, top : top + tall, left : left + wide] += 150
            mask[top : top + tall, left : left + wide] = label
            boxes.append([left, top, left + wide, top + tall])
        mask[:2] = 255
        ignored = torch.arange(len(boxes)) == (0 if number % 2 else -1)
        objects = Boxes(
            torch.tensor(boxes).reshape(-1, 4).float(), torch.arange(len(boxes)) + 1, ignored, HEIGHT, WIDTH
        )
        annotations.append(Mask(mask) if family == SEGMENTATION else objects)
    return AnnotatedMemory(images.to(torch.uint8), annotations, CLASSES)


def task_of(family: str) -> Task:
    return SemanticSegmentation() if family == SEGMENTATION else Detection()


def model_of(family: str, *, seed: int, width: int) -> nn.Module:
    """Return a model; a student's segmentation net has an auxiliary head and dropout."""
    if family != SEGMENTATION:
        return make(family, seed=seed, width=width)
    torch.manual_seed(seed)
    return FCN(ResNet8(num_classes=4, width=width), num_classes=4, output_stride=4, width=4, auxiliary=True)


def transforms_of(family: str) -> tuple[Any, ...]:
    moved = (RandomScaleCrop([HEIGHT, WIDTH], (0.6, 1.6), "size"), RandomHorizontalFlip(), ColorJitter(0.3))
    cut = (EachImage(v2.RandomIoUCrop()), RandomCrop(padding=3), RandomHorizontalFlip())
    return moved if family == SEGMENTATION else cut


def connected(family: str) -> dict[str, Path]:
    """Return one path of every kind that connects two models of the family and can be stored, by its class's name."""
    return {name: getattr(paths, name)() for name in _connected(family)}


@cache
def _connected(family: str) -> tuple[str, ...]:
    student, teacher = (model_of(family, seed=seed, width=width) for seed, width in ((0, 4), (1, 8)))
    task, images = task_of(family), torch.zeros(2, 3, HEIGHT, WIDTH)
    probes = task.probe(student, images), task.probe(teacher, images)
    found = []
    for name in paths.__all__:
        path = getattr(paths, name)()
        with contextlib.suppress(ValueError):
            path.connect(*probes)
            found += [name] if path.storable else []
    return tuple(found)


@dataclass
class DenseScene:
    """Makes the parts of a training anew and always alike.

    Attributes:
        family: of the models; it decides the task.
        layout: whether images and weights are channels-last.
        precision: of the student's forward pass.
        device: of images and models.
    """

    family: str
    layout: bool = False
    precision: str = "float32"
    device: torch.device = CPU

    def __post_init__(self) -> None:
        self.source = source_of(self.family)
        self.task = task_of(self.family)

    def loader(self, first: int = 0, last: int = NUM_TRAIN, *, training: bool = True, **options: Any) -> Loader:
        options = {"batch_size": 4, "transforms": transforms_of(self.family) if training else (), **options}
        return Loader(
            Subset(self.source, np.arange(first, last, dtype=np.int64)),
            mean=(0.4,) * 3,
            std=(0.25,) * 3,
            shuffle=training,
            drop_last=training,
            device=self.device,
            channels_last=self.layout,
            **options,
        )

    def loaders(self, **options: Any) -> Loaders:
        middle = NUM_TRAIN + NUM_VALIDATION
        ranks = {name: options[name] for name in ("rank", "world_size") if name in options}
        parts = (NUM_TRAIN, middle), (middle, NUM_IMAGES)
        return Loaders(self.loader(**options), *(self.loader(*part, training=False, **ranks) for part in parts))

    def teacher(self) -> Teacher:
        return Teacher(self._laid_out(model_of(self.family, seed=1, width=8)), self.task)

    def student(self) -> nn.Module:
        return self._laid_out(model_of(self.family, seed=0, width=4))

    def distiller(
        self, teacher: Teacher, kinds: dict[str, Path] | None = None, aggregator: Aggregator | None = None
    ) -> Distiller:
        aggregator = aggregator or Equal()
        kinds = connected(self.family) if kinds is None else kinds
        sample = self.loader().batch_at(np.arange(2), 0).images
        samples = Samples(torch.arange(NUM_IMAGES), torch.from_numpy(self.source.labels))
        return Distiller(
            self.student(),
            teacher,
            kinds,
            aggregator,
            self.task,
            sample=sample,
            samples=samples,
            precision=self.precision,  # type: ignore[arg-type]
        ).to(self.device)

    def trainer(
        self,
        recipe: Recipe,
        *,
        kinds: dict[str, Path] | None = None,
        aggregator: Aggregator | None = None,
        store: LocalShards | None = None,
        views: int | None = None,
        host: Any = None,
        **options: Any,
    ) -> tuple[Trainer, StoredTargets | None]:
        """Return a trainer, and what it reads the store with, if it is to."""
        teacher = self.teacher()
        distiller = self.distiller(teacher, kinds, aggregator)
        stored = None
        if store is not None:
            stored = StoredTargets(TargetStore(store, state_digest(teacher.model)), teacher, "data")
        targets = TargetSource(distiller, teacher, stored, list(distiller.layers))
        host = host or LocalHost(self.device)
        trainer = Trainer(
            distiller,
            teacher,
            self.loaders(views=views, rank=host.rank, world_size=host.world_size),
            recipe,
            host,
            classes=CLASSES,
            targets=targets,
            **options,
        )
        return trainer, stored

    def _laid_out(self, model: nn.Module) -> nn.Module:
        model = model.to(self.device)
        return model.to(memory_format=torch.channels_last) if self.layout else model
