"""Checks every ``{use: NAME, **options}`` of a file against what it names."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable, Mapping
from typing import Any

import torch

from distill.aggregators import Aggregator
from distill.annotations import rejection
from distill.blueprint import RejectedError
from distill.build import blueprint, build, check
from distill.data.base import Dataset
from distill.schema import Problem
from distill.slots import AGGREGATOR, DATASET, MODEL, OPTIMIZER, PATH, SCHEDULER, TASK, Slot
from distill.tasks import Task
from orchestrator.assemble import draw_model, model_sizes, sketch_model
from orchestrator.config.experiment import Experiment, canonical_json
from orchestrator.config.matching import ranking_problems, uncompiled_task, unlike_annotations
from orchestrator.config.sections import TrainOptions
from orchestrator.config.stopping_slot import STOPPING_RULE
from orchestrator.ranking import VALIDATION


class SpecChecker:
    """Finds what is wrong with the specifications of a file; each distinct one is judged once."""

    def __init__(self) -> None:
        self._judged: dict[str, list[Problem]] = {}
        self._datasets: dict[str, Dataset | None] = {}

    def check(self, experiment: Experiment) -> list[Problem]:
        """Return everything that is wrong, by keys of the file."""
        modules = experiment.modules
        problems = _modules(modules)
        if problems:
            return problems

        def judge(key: str, spec: Mapping[str, Any], slot: Slot, provided: Mapping[str, Any] | None) -> None:
            found = self._once(slot, spec, lambda: check(spec, slot, modules=modules, provided=provided))
            problems.extend(problem.under(key) for problem in found)

        judge("task", experiment.task, TASK, {})
        judge("data", experiment.data, DATASET, {})
        judge("aggregator", experiment.aggregator, AGGREGATOR, {})
        if experiment.train.compile and not any(problem.key.startswith("aggregator") for problem in problems):
            problems += _uncompiled(experiment)
        for name, spec in experiment.paths.items():
            judge(f"paths.{name}", spec, PATH, {})
        if experiment.run.scheduler is not None:
            judge("run.scheduler", experiment.run.scheduler, STOPPING_RULE, {})
        task = None if any(problem.key.startswith("task") for problem in problems) else _task(experiment)
        dataset = self._dataset(experiment, is_right=not any(problem.key.startswith("data") for problem in problems))
        problems += unlike_annotations(experiment.task, experiment.data, dataset, modules)
        problems += self._model("student.model", experiment.student.model, dataset, modules)
        if experiment.teacher is not None:
            problems += self._model("teacher.model", experiment.teacher.model, dataset, modules)
        problems += self._training("train", experiment.train, modules)
        teacher_training = None if experiment.teacher is None else experiment.teacher.train
        if teacher_training is not None and experiment.document.has("teacher.train"):
            own = experiment.document.get("teacher.train") or {}
            training = self._training("teacher.train", TrainOptions(**teacher_training), modules)
            problems += [problem for problem in training if problem.key.split(".")[2] in own]
        if task is not None:
            problems += ranking_problems(experiment.run, task) + uncompiled_task(experiment, task)
        if dataset is not None:
            problems += _guided(experiment, dataset)
            problems += [] if task is None else _unfit(experiment, task, dataset)
        return problems

    def _once(self, slot: Slot, spec: Any, judge: Callable[[], list[Problem]]) -> list[Problem]:
        key = f"{slot.name} {canonical_json(spec)}"
        if key not in self._judged:
            self._judged[key] = judge()
        return self._judged[key]

    def _dataset(self, experiment: Experiment, *, is_right: bool) -> Dataset | None:
        """Return the data set, unless it is what is wrong: then models are judged without it."""
        key = canonical_json(experiment.data)
        if key not in self._datasets:
            drawn = blueprint(experiment.data, DATASET, modules=experiment.modules) if is_right else None
            self._datasets[key] = drawn.make() if drawn else None
        return self._datasets[key]

    def _model(
        self, key: str, spec: Mapping[str, Any], dataset: Dataset | None, modules: tuple[str, ...]
    ) -> list[Problem]:
        def judge() -> list[Problem]:
            problems = check(spec, MODEL, modules=modules)
            if problems or dataset is None:
                return problems
            try:
                sketch_model(draw_model(spec, dataset, modules=modules), dataset)
            except RejectedError as error:
                return [error.problem]
            except ValueError as error:
                return [Problem("use", str(error))]
            return []

        sizes = {} if dataset is None else model_sizes(dataset)
        return [problem.under(key) for problem in self._once(MODEL, {"spec": spec, "sizes": sizes}, judge)]

    def _training(self, key: str, train: TrainOptions, modules: tuple[str, ...]) -> list[Problem]:
        """Judge optimiser and schedule together: some schedules want options that the optimiser must have."""
        provided: dict[str, Any] = {"params": [torch.nn.Parameter(torch.zeros(1))]}
        problems = [
            problem.under(f"{key}.optimizer")
            for problem in [
                *check(train.optimizer, OPTIMIZER, modules=modules, provided=provided),
                *_needs_more(train.optimizer, OPTIMIZER, modules),
            ]
        ]
        if train.scheduler is None:
            return problems
        if not problems:
            optimizer = blueprint(train.optimizer, OPTIMIZER, modules=modules).make(**provided)
            provided = {"optimizer": optimizer} | dict.fromkeys(SCHEDULER.offers, max(train.epochs, 2))
        found = check(train.scheduler, SCHEDULER, modules=modules, provided=None if problems else provided)
        found = found or _needs_more(train.scheduler, SCHEDULER, modules)
        return problems + [problem.under(f"{key}.scheduler") for problem in found]


def _uncompiled(experiment: Experiment) -> list[Problem]:
    """Refuse to compile what takes gradients within the forward pass, as the trainer does."""
    aggregator: Aggregator = build(experiment.aggregator, AGGREGATOR, modules=experiment.modules)
    parts = list(aggregator.uncompilable)
    if experiment.train.diagnose is not None:
        parts.append("train.diagnose")
    if not parts:
        return []
    verb = "takes" if len(parts) == 1 else "take"
    message = f"must be false with {' and '.join(parts)}, which {verb} gradients on the way, where one graph has none"
    return [Problem("train.compile", f"{message}; found true")]


def _modules(modules: tuple[str, ...]) -> list[Problem]:
    problems = []
    for number, name in enumerate(modules):
        try:
            importlib.import_module(name)
        except Exception as error:
            reason = f"{type(error).__name__}: {error}"
            problems.append(Problem(f"modules.{number}", f"cannot be imported from the Python path: {reason}"))
    return problems


def _needs_more(spec: Mapping[str, Any], slot: Slot, modules: tuple[str, ...]) -> list[Problem]:
    """Refuse what cannot advance by itself: L-BFGS wants a closure, ReduceLROnPlateau a metric at each step."""
    try:
        step = getattr(slot.resolve(spec["use"], modules), "step", None)
    except ValueError:
        return []
    parameters = list(inspect.signature(step).parameters.values())[1:] if step else []
    wanted = [parameter.name for parameter in parameters if parameter.default is parameter.empty]
    if not wanted:
        return []
    return [Problem("use", f"{spec['use']} wants {wanted[0]} at each step, which this training does not give")]


def _task(experiment: Experiment) -> Task:
    task: Task = build(experiment.task, TASK, modules=experiment.modules)
    return task


def _unfit(experiment: Experiment, task: Task, dataset: Dataset) -> list[Problem]:
    """Refuse options of the task that are not for such data, and a metric that says nothing about them."""
    try:
        task.check_classes(dataset.num_classes)
    except ValueError as error:
        return [rejection(error, experiment.task).under("task")]
    metric = experiment.run.metric or ""
    reason = task.unranked(metric.removeprefix(VALIDATION), dataset.num_classes)
    return [Problem("run.metric", f"must not be {metric} {reason}")] if reason else []


def _guided(experiment: Experiment, dataset: Dataset) -> list[Problem]:
    """Check that what stops runs and guides a search exists."""
    problems = []
    if dataset.split.protocol == "paper":
        message = "protocol 'paper' has no validation split, and"
        if experiment.run.scheduler is not None:
            problems.append(Problem("run.scheduler", f"{message} nothing else may stop an arm"))
        if experiment.run.searcher != "random" and experiment.run.num_arms is not None:
            problems.append(Problem("run.searcher", f"{message} nothing else may guide a search"))
    return problems
