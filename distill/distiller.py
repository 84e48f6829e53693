"""A student, its paths and its aggregator: the one module that DDP wraps."""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, Literal

import torch
from torch import Tensor, nn

from distill import distributed
from distill.aggregators import Aggregator, Losses
from distill.aggregators.gradients import Gradients, SharedGradients, TapGradients
from distill.batch import Batch, Samples
from distill.counter_random import derive_seed
from distill.gradient_scope import Scope
from distill.last_parameters import last_parameters
from distill.paths import Path, Target
from distill.random_state import random_state, set_random_state
from distill.step import Step
from distill.taps import LEVEL, Probe, Tap, TapPair
from distill.tasks import Task
from distill.teacher import Teacher

Precision = Literal["float32", "bfloat16"]


class Distiller(nn.Module):
    """Computes all losses of a batch and combines them into one scalar.

    Construction connects the paths: it probes both models with ``sample``, pairs their taps, builds the adapters, and
    tells the teacher what to record. Learned weights live here, inside what DDP wraps, so that they stay bit-identical
    on every rank. A student trained alone is a distiller without paths and without teacher. ``torch.compile`` takes
    it as one graph, unless the aggregator looks at gradients, which one graph does not have.

    Args:
        student: the model to train; it is not modified.
        teacher: the frozen teacher; ``None`` only where ``paths`` is empty.
        paths: the paths by name; the names appear in metrics.
        aggregator: combines the losses.
        task: the supervised loss.
        sample: ``[n >= 2, channel, height, width]``, images of the shape that training will see.
        seed: seeds each adapter by its path's name, so that an arm's other paths do not change it.
        precision: ``bfloat16`` runs the student under autocast; losses are always computed in float32.
        samples: what the training will see, for the paths that keep a memory of it (``Path.needs_samples``).

    Raises:
        ValueError: a path cannot connect the two models, or the aggregator refuses a path.
    """

    _progress: Tensor  # scalar

    def __init__(
        self,
        student: nn.Module,
        teacher: Teacher | None,
        paths: Mapping[str, Path],
        aggregator: Aggregator,
        task: Task,
        *,
        sample: Tensor,
        seed: int = 0,
        precision: Precision = "float32",
        samples: Samples | None = None,
    ) -> None:
        super().__init__()
        if paths and teacher is None:
            raise ValueError(f"paths need a teacher, found none for {', '.join(paths)}")
        self.student = student
        self.paths = nn.ModuleDict(paths)
        self._paths = dict(paths)
        self.aggregator = aggregator
        self.task = task
        self.precision = precision
        student_probe = task.probe(student, sample)
        watched: dict[str, Tap] = {}
        if teacher is not None and paths:
            teacher_probe = task.probe(teacher.model, sample)
            self._connect(student_probe, teacher_probe, seed, samples)
            names = {pair.teacher for path in paths.values() for pair in path.pairs}
            teacher.watch([teacher_probe[name] for name in sorted(names)])
            watched = {pair.student: student_probe[pair.student] for path in paths.values() for pair in path.pairs}
        self.layers = {name: path.layers for name, path in paths.items()}
        self.layer_keys = tuple(f"{name}.{layer}" for name, layers in self.layers.items() for layer in layers)
        negative = [name for name, path in paths.items() if not path.non_negative]
        aggregator.connect(self.layers, negative)
        self._needs = aggregator.needs
        self._places = self._acting_taps(student_probe)
        self._path_places = {name: _acting(path.pairs, student_probe) for name, path in paths.items()}
        self._last_parameters = last_parameters(student, student_probe)
        self._student_parameters = [parameter for parameter in student.parameters() if parameter.requires_grad]
        # A tensor: a compiled module would be traced anew for every number.
        self.register_buffer("_progress", torch.zeros(()), persistent=False)
        self._reader = task.reader(student, watched.values())

    def _acting_taps(self, student: Probe) -> list[tuple[str, ...]]:
        """Return for each key of the aggregator the student's taps where its layers' losses act."""
        read_by = [self._paths[path].pairs_of(layer) for path, names in self.layers.items() for layer in names]
        return [
            _acting([pair for number in numbers for pair in read_by[number]], student)
            for numbers in self.aggregator.places()
        ]

    def _connect(self, student: Probe, teacher: Probe, seed: int, samples: Samples | None) -> None:
        for name, path in self._paths.items():
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(derive_seed(seed, "path", name))
                try:
                    path.connect(student, teacher)
                    if path.needs_samples:
                        path.meet(_known(samples))
                except ValueError as error:
                    raise ValueError(f"paths.{name}: {error}") from error

    def targets(self, teacher_taps: Mapping[str, Tensor], paths: Collection[str] | None = None) -> dict[str, Target]:
        """Compute paths' targets from what the teacher recorded, without gradient; of all paths, or of some."""
        chosen = self._paths if paths is None else {name: self._paths[name] for name in paths}
        with torch.no_grad():
            targets = {name: path.target(teacher_taps) for name, path in chosen.items()}
        # As they come out of the store: another order in memory would sum in another order, and round differently.
        return {
            name: {layer: value.contiguous() for layer, value in target.items()} for name, target in targets.items()
        }

    def advance(self, progress: float) -> None:
        """Say how far the training is, from 0 to 1, before a step: schedules, curricula and phases follow it.

        A training that never says so is at its start for ever.
        """
        self._progress.fill_(progress)
        for path in self._paths.values():
            path.advance(progress)
        self.aggregator.advance(progress)

    def path(self, name: str) -> Path:
        """Return a path by name."""
        return self._paths[name]

    def teacher_taps(self, paths: Collection[str]) -> frozenset[str]:
        """Return the names of the teacher's taps that these paths read."""
        return frozenset(pair.teacher for name in paths for pair in self._paths[name].pairs)

    def forward(self, batch: Batch, targets: Mapping[str, Target], look: Scope | None = None) -> Step:
        """Compute the losses of one batch.

        Args:
            batch: the samples.
            targets: what :meth:`targets` returned for the same samples; empty without paths.
            look: where each path's gradient is to be compared with the task's; ``None``: nowhere.
        """
        sources: dict[str, Tensor] = {}
        task, layers = self._losses(batch, targets, sources)
        keyed = self.aggregator.sums(layers, like=task)
        places = [[sources[name] for name in names] for names in self._places]
        gradients = {scope: self._gradients(scope, task, keyed, places) for scope in self._needs.gradients}
        aggregate = self.aggregator.combine(Losses(task, keyed, self.aggregator.keys, self._progress, gradients))
        weights = self.aggregator.spread(aggregate.weights)
        products = None if look is None else self._look(look, task, layers, sources)
        return Step(aggregate.total, task, _stack(layers, like=task), weights, aggregate.task_weight, products)

    @torch.no_grad()
    def look_again(self, batch: Batch, targets: Mapping[str, Target]) -> Tensor:
        """Return what the aggregator's losses ``[key]`` of a batch are by now, means over the ranks; leave no trace.

        The models run as in the training, with the batch's own statistics in BatchNorm, and dropout draws; but all
        buffers (running statistics, memories of samples) and random generators are left as they were. That takes a
        copy of the buffers.

        Args:
            batch: the samples.
            targets: what :meth:`targets` returned for the same samples.
        """
        with _untouched(self):
            task, layers = self._losses(batch, targets, {})
        return distributed.mean(self.aggregator.sums(layers, like=task))

    def held_out_gradients(self, batch: Batch) -> dict[Scope, Tensor]:
        """Return what the aggregator wants to know of held-out samples; leave no trace.

        The student runs as in :meth:`look_again`; neither paths nor teacher do.

        Args:
            batch: samples that no step trains on; on every rank as many.

        Returns:
            By scope the gradient of the task's loss, ``[parameter]``, a mean over the ranks.
        """
        with _untouched(self.student):
            output, _ = self._output(batch, {})
            task = self.task.loss(output, replace(batch, progress=self._progress))
            empty = task.new_zeros(0)
            scopes = self._needs.held_out_gradients
            return {scope: SharedGradients(task, empty, self._parameters_in(scope)).rows()[0] for scope in scopes}

    def _losses(
        self, batch: Batch, targets: Mapping[str, Target], sources: dict[str, Tensor]
    ) -> tuple[Tensor, list[Tensor]]:
        """Return the loss of the task and those of all layers; put the activations where paths act into ``sources``."""
        batch = replace(batch, progress=self._progress)
        output, taps = self._output(batch, sources)
        task = self.task.loss(output, batch)
        losses = {name: self._path_losses(name, taps, targets[name], batch) for name in self._paths}
        return task, [losses[name][layer] for name, names in self.layers.items() for layer in names]

    def _output(self, batch: Batch, sources: dict[str, Tensor]) -> tuple[Any, dict[str, Tensor]]:
        with torch.autocast(batch.images.device.type, torch.bfloat16, enabled=self.precision == "bfloat16"):
            return self._reader(batch.images, sources)

    def _look(self, scope: Scope, task: Tensor, layers: Sequence[Tensor], sources: Mapping[str, Tensor]) -> Tensor:
        """Return each path's gradient against the task's, ``[path, 3]``."""
        remaining = iter(layers)
        sums = [torch.stack([next(remaining) for _ in names]).sum() for names in self.layers.values()]
        places = [[sources[tap] for tap in self._path_places[name]] for name in self.layers]
        return self._gradients(scope, task, _stack(sums, like=task), places).against_task()

    def _gradients(self, scope: Scope, task: Tensor, paths: Tensor, places: Sequence[Sequence[Tensor]]) -> Gradients:
        """Return the gradients of task and paths; nothing is computed before somebody asks."""
        if scope == "taps":
            return TapGradients(task, paths, places)
        return SharedGradients(task, paths, self._parameters_in(scope))

    def _parameters_in(self, scope: Scope) -> list[nn.Parameter]:
        return self._last_parameters if scope == "last" else self._student_parameters

    def _path_losses(self, name: str, taps: Mapping[str, Tensor], target: Target, batch: Batch) -> dict[str, Tensor]:
        path = self._paths[name]
        losses: dict[str, Tensor] = path(taps, target, batch)
        return {layer: path.schedule.scale(loss, batch.progress) for layer, loss in losses.items()}

    def close(self) -> None:
        """Remove all hooks from the student, which is then the plain model again."""
        self._reader.close()


def _acting(pairs: Iterable[TapPair], student: Probe) -> tuple[str, ...]:
    """Return the student's taps where the losses of these pairs act: the deepest, or all levels of a pyramid.

    No level lies behind the others, and what an image of small objects is about the coarse ones may not know.
    """
    names = sorted({pair.student for pair in pairs}, key=student.depth)
    levels = tuple(name for name in names if name.startswith(LEVEL))
    return levels if names[-1] in levels else (names[-1],)


@contextlib.contextmanager
def _untouched(module: nn.Module) -> Iterator[None]:
    """Put all buffers and random generators back to what they were before."""
    drawn = random_state()
    kept = [
        (owner, name, buffer, buffer.clone())
        for owner in module.modules()
        for name, buffer in owner.named_buffers(recurse=False)
    ]
    try:
        yield
    finally:
        for owner, name, buffer, value in kept:
            with torch.no_grad():
                buffer.copy_(value)
            setattr(owner, name, buffer)
        set_random_state(drawn)


def _known(samples: Samples | None) -> Samples:
    if samples is None:
        raise ValueError("this path keeps a memory of the training's samples: give the Distiller samples=...")
    return samples


def _stack(values: list[Tensor], *, like: Tensor) -> Tensor:
    return torch.stack(values) if values else like.new_zeros(0)
