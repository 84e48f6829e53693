"""The names under which MLflow shows a run: parameters, tags and metrics."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from orchestrator.tracking.planned_run import PlannedRun

# Keys of an epoch's report that say when, not what.
_CLOCK = ("epoch", "step", "seconds")


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
    """Return what an epoch's report measured, without its clock."""
    return {
        name: float(value)
        for name, value in report.items()
        if name not in _CLOCK and isinstance(value, int | float) and not isinstance(value, bool)
    }


def result_metrics(result: Mapping[str, Any]) -> dict[str, float]:
    """Return the ``result/*`` metrics of a run's result, accuracies in percent and unrounded.

    Under the paper's protocol there is no validation split: accuracy is then the test accuracy.
    """
    validation = result.get("validation") or result.get("test") or {}
    test = result.get("test") or {}
    teacher = result.get("teacher") or {}
    teacher_split = teacher.get("validation") or teacher.get("test") or {}
    parameters = result.get("student_parameters")
    minutes = result.get("minutes")
    found = {
        "result/accuracy": validation.get("accuracy"),
        "result/test_accuracy": test.get("accuracy"),
        "result/agreement": validation.get("agreement"),
        "result/calibration_error": validation.get("calibration_error"),
        "result/teacher_accuracy": teacher_split.get("accuracy"),
        "result/minutes": None if minutes is None else round(minutes, 2),
        "result/parameters_m": None if parameters is None else parameters / 1e6,
    }
    return {name: float(value) for name, value in found.items() if value is not None}


def gain_metrics(result: Mapping[str, Any], alone: Mapping[str, Any]) -> dict[str, float]:
    """Return what a run gained over the student alone of the same seed, in points of accuracy."""
    ours, theirs = result_metrics(result), result_metrics(alone)
    return {
        gain: round(ours[name] - theirs[name], 9)  # less the rounding of the subtraction, which columns would show
        for gain, name in (("result/gain", "result/accuracy"), ("result/test_gain", "result/test_accuracy"))
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
