"""Runs that show the same images to the same teacher: they can share every stored target."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from distill.build import build
from distill.data.base import Dataset
from distill.slots import DATASET
from orchestrator.config import PlannedRun
from orchestrator.config.design import Design
from orchestrator.config.experiment import canonical_json
from orchestrator.held_out import HELD_OUT, held_out_share
from orchestrator.teaching import fingerprint

_TRAINING = ("batch_size", "precision", "channels_last", "views", "eval_batch_size")
"""What of ``train`` decides which images the teacher sees, and the last bits of what it says."""


@dataclass(frozen=True)
class Use:
    """What one run asks of its teacher.

    Attributes:
        epochs: of its training.
        paths: names of its paths, as the group has them.
    """

    epochs: int
    paths: frozenset[str]


@dataclass(frozen=True)
class Group:
    """Runs of one teacher, one student's taps, one data set and one data seed, which train on the same images.

    Attributes:
        key: tells it from other groups.
        shape: equal for groups that differ in their data seed alone: what is measured on one holds for the other.
        config: of one of its runs, with all paths of the group in place of its own.
        uses: what each run asks.
        has_augmentation: whether epochs show images differently.
    """

    key: str
    shape: str
    config: dict[str, Any]
    uses: tuple[Use, ...]
    has_augmentation: bool

    @property
    def paths(self) -> frozenset[str]:
        """The paths of all runs."""
        return frozenset[str]().union(*(use.paths for use in self.uses))

    @property
    def num_views(self) -> int:
        """How many views of the training images its runs look at."""
        if not self.has_augmentation:
            return 1
        epochs = max((use.epochs for use in self.uses if use.paths), default=0)
        return min(self.config["train"]["views"] or epochs, epochs)


def group_runs(runs: Iterable[PlannedRun]) -> list[Group]:
    """Sort runs with a teacher into groups.

    Two runs may use one name for paths of different options; the group then knows the later ones as ``NAME_2``, ...
    """
    members: dict[str, list[Mapping[str, Any]]] = {}
    shapes: dict[str, str] = {}
    for run in runs:
        if run.config["teacher"] is not None:
            shape = shape_of(run.config)
            key = canonical_json([shape, run.config["data_seed"]])
            members.setdefault(key, []).append(run.config)
            shapes[key] = shape
    return [_group(key, shapes[key], configs) for key, configs in members.items()]


def expected_runs(design: Design) -> list[PlannedRun]:
    """Return the runs of a design; where arms are proposed on the way, arms drawn at random stand for them."""
    from orchestrator.config.random_proposer import RandomProposer

    runs = design.planned()
    number = design.experiment.run.num_arms
    if not design.is_sampled or number is None:
        return runs
    proposer = RandomProposer(design, num_arms=number, seed=design.experiment.seed)
    while (arm := proposer.propose()) is not None:
        runs += design.runs(arm)
    return runs


def stored_names(group: Group, config: Mapping[str, Any], stored: Iterable[str]) -> tuple[str, ...]:
    """Return by their own names which paths of a run are among the group's stored ones."""
    chosen = frozenset(stored)
    return tuple(name for name, spec in config["paths"].items() if _known(group.config["paths"], name, spec) in chosen)


def shape_of(config: Mapping[str, Any]) -> str:
    """Return what is equal for runs that differ in their paths, their aggregator and their seeds alone.

    An aggregator that holds out training images is another matter: its runs see other ones.
    """
    training = {key: config["train"][key] for key in _TRAINING}
    return canonical_json(
        [
            fingerprint(config),
            config["data"],
            config["task"],
            config["student"]["model"],
            training,
            config["modules"],
            held_out_share(config),
        ]
    )


def _group(key: str, shape: str, configs: list[Mapping[str, Any]]) -> Group:
    paths: dict[str, Any] = {}
    uses = []
    for config in configs:
        for name, spec in config["paths"].items():
            paths.setdefault(_known(paths, name, spec), spec)
        names = frozenset(_known(paths, name, spec) for name, spec in config["paths"].items())
        uses.append(Use(config["train"]["epochs"], names))
    share = held_out_share(configs[0])
    merged = {**configs[0], "paths": paths, "aggregator": {"use": "Equal"}, HELD_OUT: share}
    dataset: Dataset = build(configs[0]["data"], DATASET, modules=tuple(configs[0]["modules"]))
    return Group(key, shape, merged, tuple(uses), has_augmentation=bool(dataset.transforms))


def _known(paths: Mapping[str, Any], name: str, spec: Mapping[str, Any]) -> str:
    """Return the name under which a group has, or is to have, a path."""
    candidate, number = name, 1
    while candidate in paths and paths[candidate] != spec:
        number += 1
        candidate = f"{name}_{number}"
    return candidate
