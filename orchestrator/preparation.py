"""From a job to a training that is about to begin; executing it and filling the target store start here alike."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from distill.batch import Samples
from distill.cache import cache_folder
from distill.data import Data, Loader, Subset
from distill.data.held_out import hold_out
from distill.data.loaders import Loaders
from distill.distiller import Distiller
from distill.host import Host
from distill.identity import state_digest
from distill.targets import StoredTargets, TargetSource, TargetStore, open_shards
from distill.teacher import Teacher
from orchestrator.assemble import Assembly, assemble
from orchestrator.held_out import held_out_share
from orchestrator.job import Job, StoreJob
from orchestrator.storage import Storage

SAMPLE_SIZE = 2
"""Images that probe the models: BatchNorm needs more than one."""


@dataclass(frozen=True)
class Preparation:
    """Everything that a training needs, on its device.

    Attributes:
        data: the loaded data set.
        loaders: of this rank; the student trains on what an aggregator leaves that holds out images.
        student: the model to train.
        teacher: its teacher, where it has one.
        teacher_result: what the teacher reached.
        distiller: student, paths and aggregator.
        stored: the target store; ``None``: the teacher is asked for every batch.
        targets: where targets come from.
    """

    data: Data
    loaders: Loaders
    student: nn.Module
    teacher: Teacher | None
    teacher_result: dict[str, Any] | None
    distiller: Distiller
    stored: StoredTargets | None
    targets: TargetSource


def prepare(job: Job, host: Host) -> Preparation:
    """Build models, data and paths of a job, and connect them.

    Raises:
        ValueError: something in the configuration, the data or the stored teacher is wrong.
    """
    config = job.config
    assembly = assemble(_with_stored_teacher(config))
    # A trial looks at a few images; those behind a URI stay where they are.
    data = assembly.dataset.survey() if job.role == "trial" else assembly.dataset.load()
    training, held_out = _training_images(config, assembly, data, host, teacher=job.role == "teacher")
    loaders = _loaders(config, data, host, training=training, held_out=held_out)
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
        samples=Samples(torch.from_numpy(training.indices), torch.from_numpy(training.labels)),
    ).to(host.device)
    stored = None
    if job.store is not None and teacher is not None:
        stored = StoredTargets(_open_store(job.store, teacher), teacher, data.fingerprint)
    return Preparation(
        data=data,
        loaders=loaders,
        student=student,
        teacher=teacher,
        teacher_result=teacher_result,
        distiller=distiller,
        stored=stored,
        targets=TargetSource(distiller, teacher, stored, job.store.paths if job.store is not None else ()),
    )


def _open_store(store: StoreJob, teacher: Teacher) -> TargetStore:
    folder = Storage(store.folder)
    location = folder.path if folder.is_local else folder.pyarrow()
    shards = open_shards(location, cache=cache_folder() / "targets")
    return TargetStore(shards, state_digest(teacher.model), precision=store.precision)


def _with_stored_teacher(config: Mapping[str, Any]) -> dict[str, Any]:
    """Leave out where the teacher's weights come from: they are read from its store, which every node reaches."""
    fresh = {"weights": None, "checkpoint": None, "weights_backbone": None}
    return {**config, "teacher": None if config["teacher"] is None else {**config["teacher"], **fresh}}


def _teacher(job: Job, assembly: Assembly, host: Host) -> tuple[Teacher | None, dict[str, Any] | None]:
    if assembly.teacher is None or (job.teacher is None and job.role != "trial"):
        return None, None
    result = None
    if job.teacher is not None:
        from orchestrator.teaching import load_teacher

        state, result = load_teacher(job.teacher)
        assembly.teacher.load_state_dict(state)
    model = assembly.teacher.to(host.device)
    if job.config["train"]["channels_last"]:
        model = model.to(memory_format=torch.channels_last)
    return Teacher(model, assembly.task), result


def _training_images(
    config: Mapping[str, Any], assembly: Assembly, data: Data, host: Host, *, teacher: bool
) -> tuple[Subset, Subset | None]:
    """Return the images to train on, and those held out of them where the aggregator learns from such."""
    training = data.teacher_train if teacher else data.train
    share = held_out_share(config)
    if not share:
        return training, None
    return hold_out(training, share, seed=assembly.dataset.split.seed, num_workers=host.world_size)


def _loaders(
    config: Mapping[str, Any], data: Data, host: Host, *, training: Subset, held_out: Subset | None
) -> Loaders:
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

    def shuffled(subset: Subset, batch_size: int, **options: Any) -> Loader:
        given = shared | options
        return Loader(
            subset, batch_size=batch_size, data_seed=config["data_seed"], shuffle=True, drop_last=True, **given
        )

    batch_size = train["batch_size"]
    apart = None
    if held_out is not None:
        whole = len(held_out) // host.world_size * host.world_size
        apart = shuffled(held_out, min(batch_size, whole))
    return Loaders(
        train=shuffled(training, batch_size, transforms=data.transforms, views=train["views"]),
        validation=evaluation(data.validation) if data.validation is not None else None,
        test=evaluation(data.test),
        held_out=apart,
    )


def _sample(loader: Loader, host: Host) -> torch.Tensor:
    return next(iter(loader.epoch(0))).images[:SAMPLE_SIZE].to(host.device)
