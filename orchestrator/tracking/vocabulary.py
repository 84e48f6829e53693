"""The names under which MLflow shows a run: parameters, tags and metrics."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from orchestrator.ranking import Ranking
from orchestrator.tracking.planned_run import PlannedRun

# Keys of an epoch's report that say when, not what.
_CLOCK = ("epoch", "step", "seconds")
_MAX_LENGTH = 240  # MLflow takes 250 characters


def flat_params(config: Mapping[str, Any]) -> dict[str, str]:
    """Return a resolved configuration as flat parameters, such as ``train.optimizer.lr``.

    MLflow shows a nested parameter as one unreadable string. Mappings in lists are numbered (``data.augment.0.use``),
    other lists stay together. The user's home folder becomes ``~``, since a store may be shared.
    """
    return dict(_flatten(config, ""))


def run_params(run: PlannedRun, *, path_names: Iterable[str], labels: Mapping[str, str]) -> dict[str, str]:
    """Return the parameters of a run: its resolved configuration, and what tables sort and group by.

    Args:
        run: the run.
        path_names: every path of the sweep; ``path.<name>`` says ``on`` or ``off`` for each.
        labels: what is the same for the whole sweep (teacher, student, dataset). It is repeated on each run because
            MLflow's filters drop runs that lack a parameter.
    """
    train = run.config.get("train", {})
    short = {
        "aggregator": run.aggregator,
        "paths": "+".join(run.paths) or "none",
        "seed": str(run.seed),
        **{f"path.{name}": "on" if name in run.paths else "off" for name in path_names},
        **labels,
    }
    recipe = {
        "epochs": train.get("epochs"),
        "batch": train.get("batch_size"),
        "lr": (train.get("optimizer") or {}).get("lr"),
    }
    return flat_params(run.config) | short | {name: _text(value) for name, value in recipe.items() if value is not None}


def epoch_metrics(report: Mapping[str, Any]) -> dict[str, float]:
    """Return what an epoch's report measured, without its clock, under names that MLflow takes."""
    metrics: dict[str, float] = {}
    for name, value in report.items():
        if name not in _CLOCK and isinstance(value, int | float) and not isinstance(value, bool):
            metrics[_distinct(legal_name(name), metrics)] = float(value)
    return metrics


def legal_name(name: str) -> str:
    """Return a metric's name as MLflow takes it.

    Names of classes come from the data. MLflow refuses all but letters, digits, ``_-.: /``, and whatever a path would
    close up, such as an empty part.
    """
    parts = [re.sub(r"[^\w\-.: ]", "_", part).strip(" ") for part in name.split("/")]
    return "/".join("_" if part in ("", ".", "..") else part for part in parts)[:_MAX_LENGTH]


def _distinct(name: str, taken: Mapping[str, float]) -> str:
    """Return the name, numbered where another class already has it."""
    number, distinct = 1, name
    while distinct in taken:
        number += 1
        distinct = f"{name} {number}"
    return distinct


def result_metrics(result: Mapping[str, Any], metric: str) -> dict[str, float]:
    """Return the ``result/*`` metrics of a run's result, shares in percent and unrounded.

    Under the paper's protocol there is no validation split: ``result/<metric>`` is then that of the test split.

    Args:
        result: as the run left it.
        metric: name of the metric that ranks, without its split.
    """
    validation = result.get("validation") or result.get("test") or {}
    test = result.get("test") or {}
    teacher = result.get("teacher") or {}
    teacher_split = teacher.get("validation") or teacher.get("test") or {}
    parameters = result.get("student_parameters")
    minutes = result.get("minutes")
    found = {
        f"result/{metric}": validation.get(metric),
        f"result/test_{metric}": test.get(metric),
        "result/agreement": validation.get("agreement"),
        "result/calibration_error": validation.get("calibration_error"),
        f"result/teacher_{metric}": teacher_split.get(metric),
        "result/minutes": None if minutes is None else round(minutes, 2),
        "result/parameters_m": None if parameters is None else parameters / 1e6,
    }
    return {name: float(value) for name, value in found.items() if value is not None}


def gain_metrics(result: Mapping[str, Any], alone: Mapping[str, Any], ranking: Ranking) -> dict[str, float]:
    """Return what a run gained over the student alone of the same seed, positive where it is better."""
    metric = ranking.name
    ours, theirs = result_metrics(result, metric), result_metrics(alone, metric)
    return {
        # Less the rounding of the subtraction, which columns would show.
        gain: round(ranking.sign * (ours[name] - theirs[name]), 9)
        for gain, name in (("result/gain", f"result/{metric}"), ("result/test_gain", f"result/test_{metric}"))
        if name in ours and name in theirs
    }


def _flatten(value: Any, name: str) -> Iterable[tuple[str, str]]:
    if isinstance(value, Mapping) and value:
        for key, item in value.items():
            yield from _flatten(item, f"{name}.{key}" if name else str(key))
    elif isinstance(value, list | tuple) and any(isinstance(item, Mapping) for item in value):
        for position, item in enumerate(value):
            yield from _flatten(item, f"{name}.{position}")
    else:
        yield name, _text(value)


def _text(value: Any) -> str:
    home = str(Path.home())
    if isinstance(value, str):
        return "~" + value[len(home) :] if value == home or value.startswith(home + "/") else value
    return json.dumps(value, default=str)
