"""Whether the parts of a file fit its task: the data by what annotates them, the metric by what the task measures."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from typing import Any

from distill.data.annotation import Annotation
from distill.data.base import Dataset
from distill.schema import Problem, nearest, return_type
from distill.slots import DATASET, TASK, Slot
from distill.tasks import Task
from orchestrator.config.experiment import Experiment
from orchestrator.config.sections import RunOptions
from orchestrator.ranking import VALIDATION

Annotated = type[Annotation] | None
"""What annotates images; ``None``: a class each."""


def unlike_annotations(
    task: Mapping[str, Any], data: Mapping[str, Any], dataset: Dataset | None, modules: Sequence[str]
) -> list[Problem]:
    """Refuse data that are not annotated as the task needs; a wrong name is judged elsewhere.

    Args:
        task: its specification.
        data: theirs.
        dataset: what ``data`` describes; ``None`` where an option is wrong: then the class says what it can.
        modules: modules of the user's own.
    """
    try:
        learner, kind = (_kind(spec, slot, modules) for spec, slot in ((task, TASK), (data, DATASET)))
    except ValueError:
        return []
    needed: Annotated = learner.annotation
    given = _offered(kind) if dataset is None else (dataset.annotation,)
    if needed in given:
        return []
    fitting = sorted(name for name, target in DATASET.registry().items() if needed in _offered(_made(target)))
    learning = sorted(name for name, target in TASK.registry().items() if target.annotation in given)
    known = {
        f"data sets with {_words(needed)}": fitting,
        f"tasks for {' or '.join(map(_words, given))}": learning,
    }
    message = f"{data['use']} {_gives(given)}, but {task['use']} learns from {_words(needed)}"
    if needed in _offered(kind):
        message += f", which an option of it chooses: distillery ls {data['use']}"
    listed = [f"{what}: {', '.join(names)}" for what, names in known.items() if names]
    return [Problem("data", "; ".join([message, *listed]))]


def uncompiled_task(experiment: Experiment, task: Task) -> list[Problem]:
    """Refuse to compile a task that has no one graph, as the trainer does, for the student or for the teacher."""
    if task.compiles:
        return []
    teacher = experiment.document.get("teacher.train") if experiment.document.has("teacher.train") else None
    asked = {"train.compile": experiment.train.compile, "teacher.train.compile": (teacher or {}).get("compile")}
    message = f"must be false with {type(task).__name__}, whose loss depends on the number of objects; found true"
    return [Problem(key, message) for key, wanted in asked.items() if wanted]


def ranking_problems(run: RunOptions, task: Task) -> list[Problem]:
    """Refuse a metric that the task does not measure, and a mode that takes the worse for the better."""
    if run.metric is None:
        name = task.metric
    else:
        known = [VALIDATION + metric for metric in task.metrics_known]
        if run.metric not in known:
            message = f"must be a metric of {type(task).__name__}: {', '.join(known)}; found '{run.metric}'."
            return [Problem("run.metric", message, nearest(run.metric, known))]
        name = run.metric.removeprefix(VALIDATION)
    mode = "min" if name in task.smaller_is_better else "max"
    if run.mode in (None, mode):
        return []
    better = "less" if mode == "min" else "more"
    return [
        Problem("run.mode", f"must be {mode} with {VALIDATION}{name}, of which {better} is better; found {run.mode}")
    ]


def _kind(spec: Mapping[str, Any], slot: Slot, modules: Sequence[str]) -> Any:
    return _made(slot.resolve(spec["use"], modules))


def _made(target: Any) -> Any:
    """Return the class of what a class or factory makes."""
    return target if inspect.isclass(target) else return_type(target)


def _offered(dataset: Any) -> tuple[Annotated, ...]:
    """Return all that can annotate a data set's images, before its options are known."""
    return dataset.annotations or (dataset.annotation,)


def _words(annotation: Annotated) -> str:
    return "a class for each image" if annotation is None else annotation.plural


def _gives(annotations: Sequence[Annotated]) -> str:
    """Say what images come with: a class each, or what an option of their data set chooses from."""
    plurals = [annotation.plural for annotation in annotations if annotation is not None]
    return f"annotates images with {' or '.join(plurals)}" if plurals else "gives a class to each image"
