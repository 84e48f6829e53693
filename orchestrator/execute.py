"""The one training function: a job and a host in, a result out. Every host runs this."""

from __future__ import annotations

import hashlib
import json
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from distill.checkpoint import Checkpoints
from distill.counter_random import derive_seed
from distill.diagnosis import Diagnosis
from distill.host import Host
from distill.optimization import optimizer_maker, scheduler_maker
from distill.trainer import Recipe, Trainer
from orchestrator.assemble import resolve_optimizer, resolve_scheduler
from orchestrator.job import Job
from orchestrator.preparation import prepare
from orchestrator.storage import Storage
from orchestrator.trajectory_picture import PICTURE, TRAJECTORY, draw

CHECKPOINTS = "checkpoints"


def execute(payload: Mapping[str, Any], host: Host) -> dict[str, Any]:
    """Run one job to its end, or until the host stops it; continue from its last checkpoint where there is one.

    Rank 0 leaves in the run's folder: ``student.pt`` (a plain state dict), ``trajectory.parquet`` and its picture,
    ``config.json`` and ``result.json``.

    Args:
        payload: a :class:`Job` as plain data.
        host: where this runs.

    Returns:
        The result of the run, as plain data.
    """
    job = Job.from_dict(payload)
    prepared = prepare(job, host)
    storage = Storage(job.directory)
    trainer = Trainer(
        prepared.distiller,
        prepared.teacher,
        prepared.loaders,
        _recipe(job.config),
        host,
        classes=prepared.data.classes,
        checkpoints=Checkpoints(storage.path / CHECKPOINTS if storage.is_local else storage.pyarrow(CHECKPOINTS)),
        config_hash=job.config_hash,
        targets=prepared.targets,
    )
    trainer.resume()
    result = trainer.run()
    prepared.distiller.close()
    result |= {
        "teacher": prepared.teacher_result,
        "protocol": prepared.data.protocol,
        "data_fingerprint": prepared.data.fingerprint,
    }
    if host.rank == 0 and result["status"] == "finished":
        _leave(storage, prepared.student, trainer, job=job, result=result)
    return result


def _recipe(config: Mapping[str, Any]) -> Recipe:
    train = config["train"]
    kind, options = resolve_optimizer(train["optimizer"], config["modules"])
    scheduler = None
    if train["scheduler"] is not None:
        scheduler = scheduler_maker(
            *resolve_scheduler(train["scheduler"], config["modules"]), step=train["scheduler_step"]
        )
    return Recipe(
        epochs=train["epochs"],
        optimizer=optimizer_maker(kind, options),
        scheduler=scheduler,
        scheduler_step=train["scheduler_step"],
        accumulate=train["accumulate"],
        clip_norm=train["clip_norm"],
        log_every=train["log_every"],
        checkpoint_every=train["checkpoint_every"],
        seed=derive_seed(config["seed"], "recipe"),
        compile=train["compile"],
        diagnosis=Diagnosis(**train["diagnose"]) if train["diagnose"] is not None else None,
    )


def _leave(storage: Storage, student: nn.Module, trainer: Trainer, *, job: Job, result: Mapping[str, Any]) -> None:
    """Write what outlives the run into its folder, the result last: its presence says that the rest is whole.

    The trajectory is drawn here and not by the driver, whom half a second a run would keep from all other runs.
    """
    aside = Path(tempfile.mkdtemp(prefix="distillery-"))
    try:
        torch.save({name: value.cpu() for name, value in student.state_dict().items()}, aside / "student.pt")
        trainer.trajectory.write(aside / TRAJECTORY)
        files = {name: _digest(aside / name) for name in ("student.pt", TRAJECTORY)}
        (aside / "result.json").write_text(json.dumps({**result, "files": files}, indent=2))
        (aside / "config.json").write_text(json.dumps(job.config, indent=2))
        if trainer.distiller.layers:
            draw(aside / TRAJECTORY, aside / PICTURE, title=job.name)
        for name in ("student.pt", TRAJECTORY, PICTURE, "config.json", "result.json"):
            if (aside / name).exists():
                storage.upload(aside / name, name)
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
