"""The sections of an experiment file; their fields and annotations are the schema."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated, Any, Literal

from distill.annotations import Rule
from distill.diagnosis import Diagnosis
from orchestrator.ranking import Ranking

if TYPE_CHECKING:
    from orchestrator.schedulers.stopping_rule import StoppingRule


def at_least(bound: float) -> Rule:
    """Return the rule that a value is not below ``bound``."""
    return lambda value: "" if value >= bound else f"must be at least {bound:g}"


def above(bound: float) -> Rule:
    """Return the rule that a value lies above ``bound``."""
    return lambda value: "" if value > bound else f"must be above {bound:g}"


def names_its_class(value: Any) -> str:
    """Rule of a specification: it says under ``use`` what is to be made."""
    return "" if isinstance(value.get("use"), str) else "must name what to use, as in {use: NAME}"


Spec = Annotated[Mapping[str, Any], names_its_class]
"""``{use: NAME, **options}``; the options are judged by what the name stands for."""
DEFAULT_OPTIMIZER: Mapping[str, Any] = {"use": "torch.optim.SGD", "lr": 0.1, "momentum": 0.9}
Count = Annotated[int, at_least(1)]


@dataclass(frozen=True)
class TrainOptions:
    """How a student, and unless it says otherwise its teacher, is trained.

    Attributes:
        epochs: passes over the training split.
        batch_size: images a step, over all workers.
        optimizer: any optimiser of ``torch.optim``.
        scheduler: any schedule of ``torch.optim.lr_scheduler``; ``None`` keeps the learning rate. Its own length
            (``total_steps``, ``T_max``, ``total_iters``) is filled in where the file leaves it out.
        scheduler_step: whether the schedule advances with each optimiser step (``batch``) or each ``epoch``.
        precision: ``bfloat16`` runs the models under autocast.
        channels_last: memory layout of images and models.
        clip_norm: largest norm of the gradient; ``None`` does not clip.
        accumulate: batches whose gradients make one optimiser step.
        log_every: optimiser steps between two rows of the trajectory.
        eval_batch_size: images a worker evaluates at once; ``None``: as the task says, 256 of classification,
            16 of the others.
        checkpoint_every: epochs between two checkpoints.
        views: number of augmentations of each image, which the epochs show in turn; ``None``: a new one each epoch.
        compile: whether ``torch.compile`` makes one graph of student, paths and aggregator; worth its minutes in long
            trainings, refused with tasks that have no one graph.
        diagnose: compares each path's gradient with the task's now and then, ``{every: STEPS, scope: taps | last |
            all}``; ``{}`` for every 50 steps in the last stage; ``None``: never.
    """

    epochs: Count
    batch_size: Count = 64
    optimizer: Spec = field(default_factory=lambda: dict(DEFAULT_OPTIMIZER))
    scheduler: Spec | None = None
    scheduler_step: Literal["batch", "epoch"] = "batch"
    precision: Literal["float32", "bfloat16"] = "float32"
    channels_last: bool = False
    clip_norm: Annotated[float, above(0)] | None = None
    accumulate: Count = 1
    log_every: Count = 10
    eval_batch_size: Count | None = None
    checkpoint_every: Count = 1
    views: Count | None = None
    compile: bool = False
    diagnose: Diagnosis | None = None


@dataclass(frozen=True)
class ModelSection:
    """A model and where its weights come from: from scratch, from torchvision, or from a file.

    Attributes:
        model: a factory of ``distill.models`` or ``torchvision.models``, or one of the user's own.
        weights: name of torchvision weights, such as ``DEFAULT``.
        checkpoint: file with a state dict.
        weights_backbone: name of torchvision weights for the backbone of a dense model alone, such as ``DEFAULT``.

    Raises:
        ValueError: more than one of ``weights``, ``checkpoint`` and ``weights_backbone`` is given.
    """

    model: Spec
    weights: str | None = None
    checkpoint: str | None = None
    weights_backbone: str | None = None

    def __post_init__(self) -> None:
        given = [key for key in ("weights", "checkpoint", "weights_backbone") if getattr(self, key) is not None]
        if len(given) > 1:
            raise ValueError(f"{given[1]} cannot stand beside {given[0]}: a model starts from one of them")


@dataclass(frozen=True)
class TeacherSection(ModelSection):
    """The teacher: a model, and how it is trained where it is not given.

    Attributes:
        train: keys that replace those of the file's ``train``; ``None`` for a teacher with ``weights`` or
            ``checkpoint`` that is used as it is.
        seed: of its initial weights and the order of its data.
    """

    train: Mapping[str, Any] | None = None
    seed: int = 0

    @property
    def is_given(self) -> bool:
        """Whether the teacher is used as it is loaded."""
        return self.train is None and (self.weights is not None or self.checkpoint is not None)


@dataclass(frozen=True)
class RunOptions:
    """Where and how runs are executed.

    Attributes:
        metric: what ranks runs, ``val/NAME`` of the task's metrics; ``None``: the one that the task ranks by.
        mode: whether more of it is better; ``None``: as the task says.
        workers: workers a run.
        cpus_per_worker: CPU cores that a worker uses.
        gpus_per_worker: GPUs, or a share of one, that a worker uses; ``auto``: the share that one run was seen to need,
            and nothing where there is no GPU.
        max_concurrent: most runs at a time; ``None``: as many as fit.
        num_arms: number of arms to propose, where the search samples; ``None``: all arms of the grid.
        searcher: what proposes arms where the search samples.
        scheduler: a rule of ``orchestrator.schedulers`` that stops arms early; ``None`` stops none.
        storage: folder or URI of all outputs.
        tracking_uri: MLflow store; ``None``: a sqlite file in ``storage``.
        max_failures: how often a run may fail and be restarted from its last checkpoint.
        store_gib: GiB that stored targets may take; those used least recently make room.
    """

    metric: str | None = None
    mode: Literal["max", "min"] | None = None
    workers: Count = 1
    cpus_per_worker: Count = 1
    gpus_per_worker: Annotated[float, at_least(0)] | Literal["auto"] = 0.0
    max_concurrent: Count | None = None
    num_arms: Count | None = None
    searcher: Literal["random", "optuna"] = "random"
    scheduler: Spec | None = None
    storage: str = "outputs"
    tracking_uri: str | None = None
    max_failures: Annotated[int, at_least(0)] = 0
    store_gib: Annotated[float, at_least(0)] = 20.0

    @property
    def ranking(self) -> Ranking:
        """The metric that ranks, and its better end; of a resolved file, which says both."""
        assert self.metric is not None
        assert self.mode is not None
        return Ranking(self.metric, self.mode)

    @property
    def stopping_rule(self) -> StoppingRule | None:
        """What ``scheduler`` describes, made."""
        from distill.build import build
        from orchestrator.config.stopping_slot import STOPPING_RULE

        rule: StoppingRule | None = None if self.scheduler is None else build(self.scheduler, STOPPING_RULE)
        return rule
