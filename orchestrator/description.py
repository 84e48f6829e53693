"""What an experiment says about itself: ``experiment.json``."""

from __future__ import annotations

import datetime
from collections.abc import Mapping
from typing import Any

from orchestrator.config import Experiment
from orchestrator.provenance import git_revision, versions


def describe(experiment: Experiment, *, planned: int | None) -> dict[str, Any]:
    """Return what is known before anything runs.

    Args:
        experiment: the resolved file.
        planned: number of runs; ``None`` where arms are proposed on the way.
    """
    config = experiment.config
    return {
        "name": experiment.name,
        "config": config,
        "config_hash": experiment.config_hash,
        "metric": experiment.run.ranking.metric,
        "mode": experiment.run.ranking.mode,
        "protocol": (config["data"].get("split") or {}).get("protocol", "holdout"),
        "planned": planned,
        "created": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "git": git_revision(),
        "versions": versions(),
        "paths": {name: spec["use"] for name, spec in config["paths"].items()},
        "teacher_label": _label(config["teacher"]["model"]) if config["teacher"] else None,
        "student_label": _label(config["student"]["model"]),
        "data_label": _short(config["data"]["use"]),
    }


def _label(model: Mapping[str, Any]) -> str:
    """Return a model's name, with its width where the file gives one, and what it is built on."""
    width = f" width {model['width']}" if model.get("width") is not None else ""
    backbone = model.get("backbone")
    return _short(model["use"]) + width + (f" on {_label(backbone)}" if isinstance(backbone, Mapping) else "")


def _short(name: str) -> str:
    return name.rpartition(".")[2]
