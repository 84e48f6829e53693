"""Whether the parts of a file fit its task: the data by what annotates them, the metric by what the task measures."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from typing import Any

from distill.data.annotation import Annotation
from distill.schema import Problem, nearest, return_type
from distill.slots import DATASET, TASK, Slot
from distill.tasks import Task
from orchestrator.config.sections import RunOptions

VALIDATION = "val/"
"""What the names of metrics that can rank runs begin with."""


def unlike_annotations(task: Mapping[str, Any], data: Mapping[str, Any], modules: Sequence[str]) -> list[Problem]:
    """Refuse data that are not annotated as the task needs; a wrong name is judged elsewhere.

    The classes say it, so that wrong options of either do not hide it.
    """
    try:
        learner, dataset = (_kind(spec, slot, modules) for spec, slot in ((task, TASK), (data, DATASET)))
    except ValueError:
        return []
    needed = _annotation(learner)
    if _annotation(dataset) is needed:
        return []
    known = DATASET.registry()
    fitting = sorted(name for name in known if _annotation(_made(known[name])) is needed)
    learning = sorted(name for name, kind in TASK.registry().items() if _annotation(kind) is _annotation(dataset))
    message = (
        f"{data['use']} {_gives(dataset)}, but {task['use']} learns from {_words(needed)}; "
        f"data sets with {_words(needed)}: {', '.join(fitting) or 'none'}"
    )
    tasks = f"; tasks for {_words(_annotation(dataset))}: {', '.join(learning)}" if learning else ""
    return [Problem("data", message + tasks)]


def ranking_problems(run: RunOptions, task: Task) -> list[Problem]:
    """Refuse a metric that the task does not measure, and a mode that takes the worse for the better."""
    if run.metric is None:
        name = task.metric
    else:
        known = [VALIDATION + metric for metric in task.metrics_known]
        if run.metric not in known:
            message = f"must be a metric of {type(task).__name__}: {', '.join(known)}; found '{run.metric}'"
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


def _annotation(kind: Any) -> type[Annotation] | None:
    annotation: type[Annotation] | None = kind.annotation
    return annotation


def _words(annotation: type[Annotation] | None) -> str:
    return "a class for each image" if annotation is None else annotation.plural


def _gives(dataset: Any) -> str:
    """Say what a data set's images come with."""
    annotation = _annotation(dataset)
    return "gives a class to each image" if annotation is None else f"annotates images with {annotation.plural}"
