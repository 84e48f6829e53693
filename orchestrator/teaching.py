"""The teacher of a run: its configuration, its fingerprint, its place, its weights."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from orchestrator.config import PlannedRun, UserError, config_hash
from orchestrator.job import Job
from orchestrator.storage import Storage

FOLDER = "teachers"
WEIGHTS = "student.pt"
"""A teacher is left behind by the same training function as any student."""
ON_THE_SIDE = ("log_every", "eval_batch_size", "checkpoint_every", "diagnose")
"""Options of a training that do not change what its weights become; a teacher takes them over from its students."""


def teacher_config(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the configuration of the run that produces the teacher of ``config``.

    A teacher with ``weights`` or ``checkpoint`` and no ``train`` is trained for no epoch: it is loaded, evaluated and
    stored. One with ``weights_backbone`` is trained, for its head starts fresh.
    """
    teacher = config["teacher"]
    # A teacher has no paths: there is nothing to diagnose.
    train = {**config["train"], **(teacher["train"] or {}), "diagnose": None}
    if teacher["train"] is None and (teacher["weights"] is not None or teacher["checkpoint"] is not None):
        train |= {"epochs": 0, "scheduler": None}
    return {
        "name": f"teacher of {config['name']}",
        "seed": teacher["seed"],
        "data_seed": teacher["seed"],
        "modules": config["modules"],
        "task": config["task"],
        "data": config["data"],
        "teacher": None,
        "student": {name: teacher.get(name) for name in ("model", "weights", "checkpoint", "weights_backbone")},
        "paths": {},
        "aggregator": {"use": "Equal"},
        "train": train,
        "run": config["run"],
    }


def fingerprint(config: Mapping[str, Any]) -> str:
    """Return what identifies the teacher of ``config``: all that its weights depend on, a checkpoint by its content."""
    produced_by = teacher_config(config)
    identity = {name: produced_by[name] for name in ("seed", "data_seed", "task", "data", "student", "train")}
    identity["train"] = {key: value for key, value in identity["train"].items() if key not in ON_THE_SIDE}
    checkpoint = produced_by["student"]["checkpoint"]
    if checkpoint is not None:
        identity["student"] = identity["student"] | {"checkpoint": _digest(Path(checkpoint))}
    return config_hash(identity)


def teacher_job(config: Mapping[str, Any], storage: Storage) -> Job:
    """Return the job that produces the teacher of ``config`` in its place under ``storage``."""
    mark = fingerprint(config)
    return Job(
        config=teacher_config(config),
        config_hash=mark,
        directory=storage.child(FOLDER, mark).uri,
        role="teacher",
    )


def is_ready(job: Job) -> bool:
    """Whether the teacher is stored whole."""
    return Storage(job.directory).exists("result.json")


def load_result(directory: str) -> dict[str, Any]:
    """Return what the teacher in ``directory`` reached, as its run wrote it."""
    result: dict[str, Any] = json.loads(Storage(directory).read_text("result.json"))
    return result


def load_teacher(directory: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the weights and the stored result of the teacher in ``directory``.

    Raises:
        ValueError: the weights are not those that the result was written for.
    """
    import torch

    storage = Storage(directory)
    result = load_result(directory)
    with storage.local(WEIGHTS) as path:
        found = _digest(path)
        if found != result["files"][WEIGHTS]:
            raise ValueError(
                f"{storage.uri}/{WEIGHTS} is damaged: its SHA-256 is {found}, its result.json says "
                f"{result['files'][WEIGHTS]}; delete the folder and it is made again"
            )
        state = torch.load(path, map_location="cpu", weights_only=True)
    return state, {"validation": result["validation"], "test": result["test"], "fingerprint": storage.name}


def teacher_directory(config: Mapping[str, Any], storage: Storage) -> str | None:
    """Return where the teacher of a run is stored, or ``None`` where the run has none."""
    return None if config["teacher"] is None else storage.child(FOLDER, fingerprint(config)).uri


def teacher_run(config: Mapping[str, Any]) -> PlannedRun:
    """Return the run that produces the teacher of ``config``."""
    mark = fingerprint(config)
    name = f"teacher {config['teacher']['model']['use'].rpartition('.')[2]}"
    return PlannedRun(
        key=f"teacher-{mark[:10]}",
        name=name,
        arm=name,
        aggregator="none",
        paths=(),
        seed=config["teacher"]["seed"],
        kind="student",
        context={},
        config=teacher_config(config),
        config_hash=mark,
    )


def _digest(path: Path) -> str:
    if not path.is_file():
        raise UserError([f"teacher.checkpoint: there is no file {path}"])
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
