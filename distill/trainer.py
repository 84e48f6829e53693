"""The training: one step, one epoch, one run, wherever it runs."""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from torch import Tensor, nn

from distill import distributed
from distill.batch import Batch
from distill.checkpoint import Checkpoints
from distill.counter_random import derive_seed
from distill.data import Loader
from distill.data.loaders import Loaders
from distill.diagnosis import Diagnosis
from distill.distiller import Distiller
from distill.evaluate import evaluate
from distill.finite_check import FiniteCheck, check_measured
from distill.gradient_scope import Scope
from distill.host import Host
from distill.optimization import MakeOptimizer, MakeScheduler, parameter_groups
from distill.paths import Target
from distill.recorder import Recorder
from distill.step import Step
from distill.targets import TargetSource
from distill.teacher import Teacher
from distill.training_state import TrainingState
from distill.trajectory import Trajectory
from distill.unused_parameters import has_unused_parameters

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Recipe:
    """How long and how a distiller is trained.

    Args:
        epochs: passes over the training split.
        optimizer: makes the optimiser of parameter groups.
        scheduler: makes the learning rate schedule of the optimiser; ``None`` keeps the rate.
        scheduler_step: whether the schedule advances each ``batch`` (optimiser step) or each ``epoch``.
        accumulate: batches whose gradients are averaged into one optimiser step.
        clip_norm: largest norm of the gradient of student and adapters; ``None`` does not clip.
        log_every: optimiser steps between two rows of the trajectory.
        checkpoint_every: epochs between two checkpoints; the last epoch always makes one.
        seed: seeds dropout and whatever else draws from torch's generators.
        compile: whether ``torch.compile`` makes one graph of student, paths and aggregator.
        diagnosis: how often each path's gradient is compared with the task's; ``None``: never.
    """

    epochs: int
    optimizer: MakeOptimizer
    scheduler: MakeScheduler | None = None
    scheduler_step: Literal["batch", "epoch"] = "batch"
    accumulate: int = 1
    clip_norm: float | None = None
    log_every: int = 10
    checkpoint_every: int = 1
    seed: int = 0
    compile: bool = False
    diagnosis: Diagnosis | None = None


class Trainer:
    """Trains a distiller on a host; stops, resumes and reports at the ends of epochs.

    Args:
        distiller: on the host's device.
        teacher: its teacher, or ``None`` for a student trained alone without one to agree with.
        loaders: the splits.
        recipe: how to train.
        host: where this runs.
        classes: names of the data's classes, by label, for the metrics.
        checkpoints: where to keep checkpoints; ``None`` keeps none. Rank 0 writes.
        config_hash: identifies the configuration; a checkpoint of another one is refused.
        targets: where the paths' targets come from; ``None``: the teacher is asked for every batch.

    Raises:
        ValueError: an epoch has fewer batches than one step takes, or the task or aggregator cannot be compiled, or the
            latter lacks held-out samples.
    """

    def __init__(
        self,
        distiller: Distiller,
        teacher: Teacher | None,
        loaders: Loaders,
        recipe: Recipe,
        host: Host,
        *,
        classes: Sequence[str],
        checkpoints: Checkpoints | None = None,
        config_hash: str = "",
        targets: TargetSource | None = None,
    ) -> None:
        self.distiller = distiller
        self.teacher = teacher
        self.loaders = loaders
        self.recipe = recipe
        self.host = host
        self.classes = classes
        self.checkpoints = checkpoints
        self.config_hash = config_hash
        self.targets = targets or TargetSource(distiller, teacher)
        self.steps_per_epoch = len(loaders.train) // recipe.accumulate
        if self.steps_per_epoch == 0:
            raise ValueError(
                f"accumulate must not exceed the {len(loaders.train)} batches of an epoch, found {recipe.accumulate}"
            )
        if distiller.aggregator.needs.held_out and loaders.held_out is None:
            name = type(distiller.aggregator).__name__
            raise ValueError(f"{name} learns from held-out samples: give Loaders held_out=...")
        uncompilable = [*distiller.aggregator.uncompilable, *(["diagnose"] if recipe.diagnosis else [])]
        if recipe.compile and uncompilable:
            raise ValueError(
                f"compile must be false with {', '.join(uncompilable)}: gradients that are taken "
                "within the forward pass break the one graph that torch.compile is to make; found true"
            )
        if recipe.compile and not distiller.task.compiles:
            raise ValueError(
                f"compile must be false with {type(distiller.task).__name__}, whose loss depends on the number of "
                "objects, where one graph takes tensors of one shape; found true"
            )
        self.total_steps = self.steps_per_epoch * recipe.epochs
        self.optimizer = recipe.optimizer(parameter_groups(distiller))
        self.scheduler = (
            recipe.scheduler(self.optimizer, epochs=recipe.epochs, total_steps=self.total_steps)
            if recipe.scheduler and self.total_steps
            else None
        )
        self.trajectory = Trajectory(distiller.layers)
        self.state = TrainingState(
            distiller, self.optimizer, self.scheduler, self.trajectory, rank=host.rank, world_size=host.world_size
        )
        first = next(iter(loaders.train.epoch(0))) if host.world_size > 1 else None
        unused = first is not None and has_unused_parameters(distiller, first, self.targets.targets(first))
        prepared = host.prepare(distiller, find_unused_parameters=unused)
        self._module: Any = torch.compile(prepared) if recipe.compile else prepared
        self._distributed = prepared if isinstance(prepared, nn.parallel.DistributedDataParallel) else None
        torch.manual_seed(derive_seed(recipe.seed, "training", host.rank))
        self._validation_answers: list[Tensor] | None = None
        accepts_negative = distiller.aggregator.accepts_negative
        self._finite = FiniteCheck(distiller.layer_keys, host.device, rank=host.rank, accepts_negative=accepts_negative)

    def run(self) -> dict[str, Any]:
        """Train to the end, or until the host asks to stop; then evaluate once on the test split.

        Returns:
            ``status`` (``finished`` or ``stopped``), ``epochs``, ``steps``, ``minutes``, ``validation``, ``test`` (of a
            finished run only), and the numbers of parameters.

        Raises:
            distill.finite_check.NonFiniteLossError: a loss is NaN or infinite, in training or of the trained student.
            distill.finite_check.NegativeLossError: a loss is below zero that the aggregator takes for non-negative.
        """
        self._validation_answers = self.targets.answers(self.loaders.validation)
        status = "finished"
        while self.state.epoch < self.recipe.epochs:
            self._run_epoch()
            if self.state.epoch < self.recipe.epochs and self.host.should_stop():
                status = "stopped"
                break
        if self.state.validation is None:
            self.state.validation = self._evaluate(self.loaders.validation, self._validation_answers)
        return self._result(status)

    def _run_epoch(self) -> None:
        state, started = self.state, time.perf_counter()
        means = self._train_epoch()
        state.epoch += 1
        if self.scheduler is not None and self.recipe.scheduler_step == "epoch":
            self.scheduler.step()
        distributed.broadcast_buffers(self.distiller)
        state.validation = self._evaluate(self.loaders.validation, self._validation_answers)
        state.seconds += time.perf_counter() - started
        if state.epoch % self.recipe.checkpoint_every == 0 or state.epoch == self.recipe.epochs:
            state.save(self.checkpoints, self.config_hash)
        report: dict[str, Any] = {"epoch": state.epoch, "step": state.step, "seconds": state.seconds, **means}
        report |= {f"val/{name}": value for name, value in (state.validation or {}).items()}
        self.host.report(report)

    def _train_epoch(self) -> dict[str, float]:
        """Train one epoch and return the means of its losses and weights over steps and ranks."""
        state = self.state
        self._module.train()
        recorder = Recorder(self.distiller, self.recipe.log_every)
        batches = self.loaders.train.epoch(state.epoch, self.targets.open(self.loaders.train, state.epoch))
        for _ in range(self.steps_per_epoch):
            progress = state.step / self.total_steps
            step = self._train_step([next(batches) for _ in range(self.recipe.accumulate)], progress)
            recorder.add(state.step, progress, step)
            state.step += 1
        self._finite.finish()
        self.distiller.aggregator.after_epoch()
        return recorder.finish(self.trajectory, state.epoch + 1)

    def _train_step(self, batches: Sequence[Batch], progress: float) -> Step:
        """Make one optimiser step from the averaged gradients of ``batches``; return their mean losses."""
        self.optimizer.zero_grad(set_to_none=True)
        self.distiller.advance(progress)
        steps = []
        for number, batch in enumerate(batches, start=1):
            with self._gradient_sync(number == len(batches)):
                targets = self.targets.targets(batch)
                step = self._losses(batch, targets, self._looks_at(number))
                self._finite.add(step, step=self.state.step, epoch=self.state.epoch + 1)
                total = step.total / len(batches) if len(batches) > 1 else step.total
                total.backward()  # type: ignore[no-untyped-call]
            steps.append(step.detach())
        if self.recipe.clip_norm is not None:
            nn.utils.clip_grad_norm_(self._clipped_parameters(), self.recipe.clip_norm)
        self.optimizer.step()
        self.distiller.aggregator.after_step(self._look_again(batches[-1], targets), self._held_out_gradients())
        if self.scheduler is not None and self.recipe.scheduler_step == "batch":
            self.scheduler.step()
        return Step.mean(steps)

    def _looks_at(self, number: int) -> Scope | None:
        """Return where gradients are to be compared in the batch with this number, from 1, of the step."""
        diagnosis = self.recipe.diagnosis
        return diagnosis.scope if diagnosis and number == 1 and diagnosis.is_due(self.state.step) else None

    def _losses(self, batch: Batch, targets: Mapping[str, Target], look: Scope | None) -> Step:
        # Without what it brought along, so that a compiled module sees batches of one kind, stored targets or not.
        step: Step = self._module(replace(batch, targets={}), targets, look)
        return step

    def _look_again(self, batch: Batch, targets: Mapping[str, Target]) -> Tensor | None:
        """Return the losses of a batch after the step that it led to, where the aggregator wants them."""
        if not self.distiller.aggregator.needs.second_look:
            return None
        return self.distiller.look_again(replace(batch, targets={}), targets)

    def _held_out_gradients(self) -> dict[Scope, Tensor] | None:
        """Return the gradients of held-out samples after a step, where the aggregator wants them."""
        held_out = self.loaders.held_out
        if held_out is None or not self.distiller.aggregator.wants_held_out:
            return None
        return self.distiller.held_out_gradients(held_out.nth(self.state.step))

    def _gradient_sync(self, last: bool) -> contextlib.AbstractContextManager[None]:
        """Let DDP reduce gradients only with the last of the accumulated batches."""
        if last or self._distributed is None:
            return contextlib.nullcontext()
        synchronised: contextlib.AbstractContextManager[None] = self._distributed.no_sync()
        return synchronised

    def _clipped_parameters(self) -> list[nn.Parameter]:
        return [*self.distiller.student.parameters(), *self.distiller.paths.parameters()]

    def _evaluate(self, loader: Loader | None, answers: list[Tensor] | None) -> dict[str, float] | None:
        if loader is None:
            return None
        return evaluate(
            self.distiller.student,
            loader,
            self.distiller.task,
            classes=self.classes,
            teacher_answers=answers,
            precision=self.distiller.precision,
        )

    def _result(self, status: str) -> dict[str, Any]:
        result: dict[str, Any] = {
            "status": status,
            "epochs": self.state.epoch,
            "steps": self.state.step,
            "minutes": self.state.seconds / 60,
            "validation": self.state.validation,
            "test": None,
            "student_parameters": _count(self.distiller.student),
            "adapter_parameters": _count(self.distiller.paths),
            "teacher_parameters": _count(self.teacher) if self.teacher is not None else None,
        }
        if status == "finished":
            result["test"] = self._evaluate(self.loaders.test, self.targets.answers(self.loaders.test))
            for split in ("validation", "test"):
                check_measured(result[split], split=split)
        return result

    def resume(self) -> bool:
        """Continue from the newest undamaged checkpoint; return whether there was one."""
        checkpoint = self.checkpoints.latest(self.config_hash) if self.checkpoints is not None else None
        if checkpoint is None:
            return False
        self.state.restore(checkpoint)
        return True


def _count(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())
