"""The first look at a file: sections, keys and types, without importing torch; what it names is judged in semantics."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

from distill.annotations import fit
from distill.schema import Fitted, Problem, fit_options
from orchestrator.config.document import Document
from orchestrator.config.errors import UserError
from orchestrator.config.experiment import DEFAULT_AGGREGATOR, DEFAULT_TASK, Experiment
from orchestrator.config.search import Search, parse_search
from orchestrator.config.sections import DEFAULT_OPTIMIZER, TrainOptions

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_PATH_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_-]*")
_TAKEN = ("task", "total")
"""``train/loss/task`` and ``train/loss/total`` are metrics already."""


def structure(document: Document) -> Experiment:
    """Read all sections of a file.

    Args:
        document: the file, with the command line's settings in it.

    Raises:
        UserError: a key is unknown, missing, of a wrong type or out of bounds; all of them at once.
    """
    document = with_default_specs(document)
    written = document.data.get("paths")
    path_names = list(written) if isinstance(written, Mapping) else []
    options, problems = fit_options(
        document.data,
        Experiment,
        partial(fit, leaf=partial(_leaf, path_names=path_names)),
        owner="this file",
        noun="key",
        given=("document",),
        reserved={"document": "it is the file itself"},
    )
    problems += _path_names(path_names)
    name = options.setdefault("name", Path(document.path).stem)
    if isinstance(name, str) and not _NAME.fullmatch(name):
        problems.append(Problem("name", f"names a folder: letters, digits, '.', '_' and '-' only, found '{name}'"))
    if problems:
        raise document.error(problems)
    experiment = Experiment(document=document, **options)
    problems = [*_missing_teacher(experiment), *_missing_arms(experiment)]
    experiment, more = _with_teacher_training(experiment)
    if problems or more:
        raise document.error(problems + more)
    return experiment


def with_default_specs(document: Document) -> Document:
    """Write out the specifications that a file leaves to their defaults, so that single options of them can be set."""
    data: dict[str, Any] = {"task": DEFAULT_TASK, "aggregator": DEFAULT_AGGREGATOR, **document.data}
    if isinstance(data.get("train"), Mapping):
        data["train"] = {"optimizer": DEFAULT_OPTIMIZER, **data["train"]}
    return replace(document, data=data)


def _leaf(value: Any, annotation: Any, *, path_names: list[str]) -> Fitted | None:
    return parse_search(value, path_names) if annotation is Search else None


def _path_names(names: list[str]) -> list[Problem]:
    rule = "is the name of metrics: a letter, then letters, digits, '_' and '-'"
    wrong = [Problem(f"paths.{name}", f"'{name}' {rule}") for name in names if not _PATH_NAME.fullmatch(name)]
    taken = [
        Problem(f"paths.{name}", f"'{name}' is taken: it names a metric of its own") for name in names if name in _TAKEN
    ]
    return wrong + taken


def _missing_teacher(experiment: Experiment) -> list[Problem]:
    if not experiment.paths or experiment.teacher is not None:
        return []
    return [Problem("paths", "paths lead from a teacher to the student: add the section 'teacher'")]


def _missing_arms(experiment: Experiment) -> list[Problem]:
    if experiment.search is None or experiment.run.num_arms is not None:
        return []
    sampled = [key for key, domain in experiment.search.domains.items() if domain.is_sampled]
    if not sampled:
        return []
    return [Problem(f"search.{sampled[0]}", "values are drawn, so run.num_arms must say how many arms to propose")]


def _with_teacher_training(experiment: Experiment) -> tuple[Experiment, list[Problem]]:
    """Fill the teacher's training: the file's, with the teacher's own keys over it; a given teacher has none."""
    teacher = experiment.teacher
    if teacher is None or teacher.is_given:
        return experiment, []
    own = teacher.train or {}
    merged, problems = fit({**asdict(experiment.train), **own}, TrainOptions)
    if problems:
        return experiment, [problem.under("teacher.train") for problem in problems]
    return replace(experiment, teacher=replace(teacher, train=asdict(merged))), []


def load_structure(path: str | Path, settings: Any = ()) -> Experiment:
    """Read a file with settings of the command line, without looking at what it names.

    Raises:
        UserError: see :meth:`Document.load`, :func:`override` and :func:`structure`.
    """
    from orchestrator.config.overrides import override

    return structure(override(with_default_specs(Document.load(path)), settings))


__all__ = ["UserError", "load_structure", "structure"]
