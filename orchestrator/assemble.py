"""From a resolved configuration to the objects of a run; every host, the check and the teacher build them here."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import wraps
from typing import Any

import torch
from torch import nn

from distill.aggregators import Aggregator
from distill.backbone_weights import make_with_backbone
from distill.blueprint import Blueprint
from distill.build import blueprint, build
from distill.counter_random import derive_seed
from distill.data.base import Dataset
from distill.initial_weights import initialise
from distill.paths import Path
from distill.schema import schema
from distill.slots import AGGREGATOR, DATASET, MODEL, OPTIMIZER, PATH, SCHEDULER, TASK
from distill.tasks import Task

NUM_COLOURS = 3
"""Channels that a model is made for which says nothing of channels."""


@dataclass(frozen=True)
class Assembly:
    """The parts of a run, not yet connected; adapters come into being when a Distiller connects the paths.

    Attributes:
        task: what is to be learned.
        dataset: checked, not loaded.
        student: with its initial weights, which follow from the seed alone.
        teacher: the teacher's model with its initial weights; ``None`` where there is none.
        paths: by name.
        aggregator: how their losses become one.
        messages: what the user should know: which weights were loaded, which head was replaced.
    """

    task: Task
    dataset: Dataset
    student: nn.Module
    teacher: nn.Module | None
    paths: dict[str, Path]
    aggregator: Aggregator
    messages: tuple[str, ...] = ()


def assemble(config: Mapping[str, Any]) -> Assembly:
    """Build the parts of one run.

    Args:
        config: the resolved experiment of one run, as :attr:`PlannedRun.config` has it.

    Raises:
        ValueError: a name, an option, a checkpoint or a folder is wrong.
        OSError: torchvision's weights cannot be downloaded.
    """
    modules = tuple(config["modules"])
    dataset: Dataset = build(config["data"], DATASET, modules=modules)
    student, messages = assemble_model(config["student"], dataset, seed=config["seed"], modules=modules)
    teacher = None
    if config["teacher"] is not None:
        teacher, more = assemble_model(config["teacher"], dataset, seed=config["teacher"]["seed"], modules=modules)
        messages += more
    return Assembly(
        task=build(config["task"], TASK, modules=modules),
        dataset=dataset,
        student=student,
        teacher=teacher,
        paths={name: build(spec, PATH, modules=modules) for name, spec in config["paths"].items()},
        aggregator=build(config["aggregator"], AGGREGATOR, modules=modules),
        messages=tuple(messages),
    )


def assemble_model(
    section: Mapping[str, Any], dataset: Dataset, *, seed: int, modules: Sequence[str] = ()
) -> tuple[nn.Module, list[str]]:
    """Make a model with its initial weights, and say what was loaded.

    Args:
        section: ``model``, and ``weights``, ``checkpoint`` or ``weights_backbone``, or none of them.
        dataset: says how many classes and channels there are.
        seed: of the initial weights; the global generator stays as it is.
        modules: modules of the user's own.

    Raises:
        ValueError: the model cannot take such images, or the weights do not fit.
    """
    drawn = draw_model(section["model"], dataset, modules=modules)
    backbone = section.get("weights_backbone")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derive_seed(seed, "student"))
        if backbone is not None:
            return make_with_backbone(drawn, backbone, **model_sizes(dataset))
        model: nn.Module = drawn.make(**model_sizes(dataset))
        messages = initialise(
            model,
            num_classes=dataset.num_classes,
            weights=section["weights"],
            checkpoint=section["checkpoint"],
            factory=drawn.target,
        )
    return model, messages


def draw_model(spec: Mapping[str, Any], dataset: Dataset, *, modules: Sequence[str] = ()) -> Blueprint:
    """Return the blueprint of a model for the data's images.

    Raises:
        ValueError: the specification is wrong, or the model takes coloured images only and the data are grey.
    """
    drawn = blueprint(spec, MODEL, modules=modules)
    channels = dataset.image_shape[0]
    if channels != NUM_COLOURS and not schema(drawn.target).accepts("in_channels"):
        advice = "; set data.channels to 3" if schema(type(dataset)).accepts("channels") else ""
        raise ValueError(
            f"{drawn.name} takes images of {NUM_COLOURS} channels (it has no option in_channels), the data give "
            f"{channels}{advice}"
        )
    return drawn


def sketch_model(drawn: Blueprint, dataset: Dataset) -> nn.Module:
    """Make a model on the meta device, where its weights take no memory and no time."""
    try:
        with torch.device("meta"):
            model: nn.Module = drawn.make(**model_sizes(dataset))
    except NotImplementedError:  # torchvision's RegNets compute their widths with tensors
        with torch.random.fork_rng(devices=[]):
            model = drawn.make(**model_sizes(dataset)).to("meta")
    return model


def model_sizes(dataset: Dataset) -> dict[str, int]:
    """Return the options that the data decide for every model."""
    return {"num_classes": dataset.num_classes, "in_channels": dataset.image_shape[0]}


def resolve_optimizer(
    spec: Mapping[str, Any], modules: Sequence[str] = ()
) -> tuple[Callable[..., torch.optim.Optimizer], dict[str, Any]]:
    """Return an optimiser's class and options.

    Raises:
        ValueError: a name or an option is wrong.
    """
    drawn = blueprint(spec, OPTIMIZER, modules=modules)
    return drawn.target, dict(drawn.options)


def resolve_scheduler(
    spec: Mapping[str, Any], modules: Sequence[str] = ()
) -> tuple[Callable[..., torch.optim.lr_scheduler.LRScheduler], dict[str, Any]]:
    """Return what makes a schedule of an optimiser and options, and its options; schedules inside it are made, too.

    Raises:
        ValueError: a name or an option is wrong.
    """
    drawn = blueprint(spec, SCHEDULER, modules=modules)

    # With the signature of the class, off which distill.optimization reads what it can fill in.
    @wraps(drawn.target, updated=())
    def make(optimizer: torch.optim.Optimizer, **options: Any) -> torch.optim.lr_scheduler.LRScheduler:
        schedule: torch.optim.lr_scheduler.LRScheduler = replace(drawn, options=options).make(optimizer=optimizer)
        return schedule

    return make, dict(drawn.options)
