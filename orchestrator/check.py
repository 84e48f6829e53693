"""``distillery check``: builds everything that a file will need, and says what it will do."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np
import torch

from distill.annotations import named_first
from distill.build import build
from distill.data import Data, Subset
from distill.data.augmentation import read_annotated
from distill.data.base import Dataset
from distill.data.held_out import hold_out
from distill.host import LocalHost
from distill.schema import Problem
from distill.slots import DATASET
from orchestrator.build_branches import SAMPLE_SIZE, build_branches
from orchestrator.config import PlannedRun
from orchestrator.config.design import Design
from orchestrator.config.experiment import Experiment
from orchestrator.held_out import held_out_share
from orchestrator.plan import Plan
from orchestrator.storage import Storage
from orchestrator.store import expected_runs, measure, plan_store


def make_plan(experiment: Experiment) -> Plan:
    """Build every branch of a file on the CPU, without Ray, and read two of its images with what annotates them.

    Raises:
        UserError: shapes cannot meet, weights or data cannot be read; all such mistakes at once.
    """
    branches = build_branches(experiment)
    design = Design(experiment)
    torch.set_num_threads(int(experiment.run.cpus_per_worker))  # what is measured is a run's speed
    runs = expected_runs(design)
    samples, num_leaked = _read_sample(design, runs)
    effects, undecidable = _effects(design)
    return Plan(
        design=design,
        branches=tuple(branches),
        samples=samples,
        num_leaked=num_leaked,
        store=plan_store(
            runs,
            mode=experiment.store,
            budget_gib=experiment.run.store_gib,
            storage=Storage(experiment.run.storage),
            measure=partial(measure, host=LocalHost()),
        ),
        undecidable=undecidable,
        decidable=effects,
        outputs=f"{experiment.run.storage}/{experiment.name}",
    )


def _effects(design: Design) -> tuple[dict[str, float], dict[str, str]]:
    """Return what the design of a sweep can tell about each path, and what it cannot."""
    if design.experiment.search is None or design.is_sampled:
        return {}, {}
    from orchestrator.compare import decidable_effect, undecidable_paths

    planned = design.planned()
    effects = decidable_effect(planned, noise_sd=1.0)
    return {name: value for name, value in effects.items() if math.isfinite(value)}, undecidable_paths(planned)


def _read_sample(design: Design, runs: Sequence[PlannedRun]) -> tuple[dict[str, int | None], int]:
    """List the data, read two images, and count.

    Returns:
        How many images each split has, and how many are held out of the training; and on how many of these a teacher
        trains that is trained here.
    """
    experiment = design.experiment
    dataset: Dataset = build(experiment.data, DATASET, modules=experiment.modules)
    try:
        data = dataset.survey()
        first = np.arange(min(SAMPLE_SIZE, len(data.train)))
        images: Any = (
            data.train.read(first) if data.source.annotation is None else read_annotated(data.train, first, [])[0]
        )
        channels = {int(image.shape[0]) for image in images}
        if channels != {data.image_shape[0]}:
            raise ValueError(f"images have {sorted(channels)} channels, expected {data.image_shape[0]}")
        if len(data.train) < experiment.train.batch_size:
            found = f"{len(data.train):,} training images are less than one batch of {experiment.train.batch_size:,}"
            raise ValueError(f"{found}: lower train.batch_size")
    except (OSError, ValueError) as error:
        raise experiment.document.error([Problem("data", str(error))]) from error
    held_out = _held_out(dataset, data, design, runs)
    validation = None if data.validation is None else len(data.validation)
    teacher = {} if experiment.teacher is None else {"for the teacher": len(data.teacher_train)}
    counts = {name: len(images) for name, images in held_out.items()}
    samples = {"for training": len(data.train), **counts, **teacher, "validation": validation, "test": len(data.test)}
    if experiment.teacher is None or experiment.teacher.train is None:
        return samples, 0
    return samples, max((_num_shared(images, data.teacher_train) for images in held_out.values()), default=0)


def _num_shared(one: Subset, other: Subset) -> int:
    return len(np.intersect1d(one.indices, other.indices))


def _held_out(dataset: Dataset, data: Data, design: Design, runs: Sequence[PlannedRun]) -> dict[str, Subset]:
    """Return which of the training images aggregators hold out, by what to call them."""
    parts: dict[str, Subset] = {}
    experiment = design.experiment
    for run in runs:
        share = held_out_share(run.config)
        whose = run.config["aggregator"]["use"].rpartition(".")[2]
        name = f"of these held out by {whose} ({share:g})"
        if not share or name in parts:
            continue
        workers = int(experiment.run.workers)
        try:
            left, held_out = hold_out(data.train, share, seed=dataset.split.seed, num_workers=workers)
            if len(left) < experiment.train.batch_size:
                raise ValueError(
                    f"held_out takes {len(held_out):,} of the {len(data.train):,} training images for {whose}, and the "
                    f"{len(left):,} that are left are less than one batch of {experiment.train.batch_size:,}: "
                    "lower it, or train.batch_size"
                )
        except ValueError as error:
            problem = named_first(str(error), run.config["aggregator"]) or Problem("", str(error))
            origin = design.arm(run.assignment).choices["aggregator"].origin
            raise experiment.document.error([problem.under(origin)]) from error
        parts[name] = held_out
    return parts
