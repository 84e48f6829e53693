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
from distill.data import Data, Loader, Subset
from distill.distiller import Distiller
from distill.host import Host
from distill.optimization import optimizer_maker, scheduler_maker
from distill.teacher import Teacher
from distill.trainer import Loaders, Recipe, Trainer
from orchestrator.assemble import Assembly, assemble, resolve_optimizer, resolve_scheduler
from orchestrator.job import Job
from orchestrator.storage import Storage

CHECKPOINTS = "checkpoints"
SAMPLE_SIZE = 2
"""Images that probe the models: BatchNorm needs more than one."""


def execute(payload: Mapping[str, Any], host: Host) -> dict[str, Any]:
    """Run one job to its end, or until the host stops it; continue from its last checkpoint where there is one.

    Rank 0 leaves in the run's folder: ``student.pt`` (a plain state dict), ``trajectory.parquet``, ``config.json`` and
    ``result.json``.

    Args:
        payload: a :class:`Job` as plain data.
        host: where this runs.

    Returns:
        The result of the run, as plain data.
    """
    job = Job.from_dict(payload)
    config = job.config
    assembly = assemble(_with_stored_teacher(config))
    data = assembly.dataset.load()
    loaders = _loaders(config, data, host, teacher=job.role == "teacher")
    teacher, teacher_result = _teacher(job, assembly, host)
    student = assembly.student.to(host.device)
    if config["train"]["channels_last"]:
        student = student.to(memory_format=torch.channels_last)
    distiller = Distiller(
        student,
        teacher,
        assembly.paths,
        assembly.aggregator,
        assembly.task,
        sample=_sample(loaders.train, host),
        seed=config["seed"],
        precision=config["train"]["precision"],
    ).to(host.device)
    storage = Storage(job.directory)
    trainer = Trainer(
        distiller,
        teacher,
        loaders,
        _recipe(config),
        host,
        num_classes=data.num_classes,
        checkpoints=Checkpoints(storage.path / CHECKPOINTS if storage.is_local else storage.pyarrow(CHECKPOINTS)),
        config_hash=job.config_hash,
    )
    trainer.resume()
    result = trainer.run()
    distiller.close()
    result |= {"teacher": teacher_result, "protocol": data.protocol, "data_fingerprint": data.fingerprint}
    if host.rank == 0 and result["status"] == "finished":
        _leave(storage, student, trainer, config=config, result=result)
    return result


def _with_stored_teacher(config: Mapping[str, Any]) -> dict[str, Any]:
    """Leave out where the teacher's weights come from: they are read from its store, which every node reaches."""
    teacher = config["teacher"]
    return {**config, "teacher": None if teacher is None else {**teacher, "weights": None, "checkpoint": None}}


def _teacher(job: Job, assembly: Assembly, host: Host) -> tuple[Teacher | None, dict[str, Any] | None]:
    if job.teacher is None or assembly.teacher is None:
        return None, None
    from orchestrator.teaching import load_teacher

    state, result = load_teacher(job.teacher)
    assembly.teacher.load_state_dict(state)
    model = assembly.teacher.to(host.device)
    if job.config["train"]["channels_last"]:
        model = model.to(memory_format=torch.channels_last)
    return Teacher(model, assembly.task), result


def _loaders(config: Mapping[str, Any], data: Data, host: Host, *, teacher: bool) -> Loaders:
    train = config["train"]
    shared: dict[str, Any] = {
        "mean": data.mean,
        "std": data.std,
        "rank": host.rank,
        "world_size": host.world_size,
        "device": host.device,
        "channels_last": train["channels_last"],
    }

    def evaluation(subset: Subset) -> Loader:
        return Loader(
            subset, batch_size=train["eval_batch_size"] * host.world_size, shuffle=False, drop_last=False, **shared
        )

    training = Loader(
        data.teacher_train if teacher else data.train,
        batch_size=train["batch_size"],
        transforms=data.transforms,
        data_seed=config["data_seed"],
        shuffle=True,
        drop_last=True,
        **shared,
    )
    validation = evaluation(data.validation) if data.validation is not None else None
    return Loaders(training, validation, evaluation(data.test))


def _sample(loader: Loader, host: Host) -> torch.Tensor:
    return next(iter(loader.epoch(0))).images[:SAMPLE_SIZE].to(host.device)


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
    )


def _leave(
    storage: Storage, student: nn.Module, trainer: Trainer, *, config: Mapping[str, Any], result: Mapping[str, Any]
) -> None:
    """Write what outlives the run into its folder, the result last: its presence says that the rest is whole."""
    aside = Path(tempfile.mkdtemp(prefix="distillery-"))
    try:
        torch.save({name: value.cpu() for name, value in student.state_dict().items()}, aside / "student.pt")
        trainer.trajectory.write(aside / "trajectory.parquet")
        files = {name: _digest(aside / name) for name in ("student.pt", "trajectory.parquet")}
        (aside / "result.json").write_text(json.dumps({**result, "files": files}, indent=2))
        (aside / "config.json").write_text(json.dumps(config, indent=2))
        for name in ("student.pt", "trajectory.parquet", "config.json", "result.json"):
            storage.upload(aside / name, name)
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
