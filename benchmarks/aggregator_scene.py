"""Models, paths and batches at hand, and trainings on them: what ``benchmarks.aggregators`` times."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch

from benchmarks.paths import peak_bytes
from benchmarks.variants import PATHS, Step
from benchmarks.workbench import NUM_CLASSES, Workbench
from distill.aggregators import Aggregator, Equal
from distill.diagnosis import Diagnosis
from distill.distiller import Distiller
from distill.gradient_scope import Scope
from distill.host import LocalHost
from distill.targets import TargetSource
from distill.tasks import Classification
from distill.teacher import Teacher
from distill.trainer import Loaders, Recipe, Trainer

PROGRESS = 0.5
"""How far the training is said to be: in the middle, where schedules and ramps are at work."""


def crawl(parameters: object) -> torch.optim.Optimizer:
    """Make an optimiser whose steps are too small to tell: nothing diverges, and all rounds see the same losses."""
    return torch.optim.SGD(parameters, lr=1e-5, momentum=0.9, weight_decay=5e-4)  # type: ignore[arg-type]


@dataclass(frozen=True)
class Training:
    """A trainer, and what makes one of its steps."""

    trainer: Trainer
    step: Step

    def peak(self) -> int:
        """Return by how many bytes a step raises the memory that torch holds at its highest, its gradients included."""
        self.trainer.optimizer.zero_grad(set_to_none=True)  # those of the step before are no part of the idle level
        return peak_bytes(self.step, self.trainer.host.device)


class Scene:
    """Paths and their teacher, and a few batches at hand, for any number of trainings.

    Args:
        bench: models and data.
        names: of the paths.
        live: whether the teacher runs along; otherwise the batches bring their targets.
    """

    def __init__(self, bench: Workbench, names: Sequence[str], *, live: bool) -> None:
        self._bench = bench
        self._names = names
        self._task = Classification()
        self._teacher = Teacher(bench.teacher(channels_last=bench.channels_last), self._task)
        self._loader = bench.loader(channels_last=bench.channels_last)
        self._batches = list(self._loader.epoch(0))
        source, bare = TargetSource(self._distiller(Equal()), self._teacher), itertools.cycle(self._batches)
        if not live:
            self._batches = [replace(batch, targets=source.targets(batch)) for batch in self._batches]

        def ask() -> None:
            source.targets(next(bare))

        self.ask: Step = ask
        """Lets the teacher answer for a batch."""

    def training(self, aggregator: Aggregator, diagnose: Scope | None = None) -> Training:
        """Return a training of a student of its own; a diagnosis looks in every step."""
        trainer = Trainer(
            self._distiller(aggregator),
            self._teacher,
            Loaders(train=self._loader, validation=None, test=self._loader, held_out=self._loader),
            Recipe(1, crawl, diagnosis=None if diagnose is None else Diagnosis(1, diagnose)),
            LocalHost(self._bench.device),
            classes=tuple(map(str, range(NUM_CLASSES))),
        )
        batches = itertools.cycle(self._batches)

        def step() -> None:
            trainer._train_step([next(batches)], PROGRESS)

        return Training(trainer, step)

    def _distiller(self, aggregator: Aggregator) -> Distiller:
        student, sample = self._bench.student(channels_last=self._bench.channels_last), self._batches[0].images[:2]
        paths = {name: PATHS[name]() for name in self._names}
        distiller = Distiller(
            student, self._teacher, paths, aggregator, self._task, sample=sample, precision=self._bench.precision
        )
        return distiller.to(self._bench.device).train()
