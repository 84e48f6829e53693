"""The plan of a sweep's target store."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from distill.targets import open_shards
from orchestrator.config import PlannedRun
from orchestrator.job import StoreJob
from orchestrator.storage import Storage
from orchestrator.store.decision import Decision, Mode, ask_always, decide, describe, is_asked_once
from orchestrator.store.group import Group, group_runs, shape_of, stored_names
from orchestrator.store.measurement import Measurement

FOLDER = "targets"
GIB = 2**30

Measure = Callable[[Mapping[str, Any]], Mapping[str, Any]]
"""Measures a group, here or on a cluster; see :func:`orchestrator.store.measurement.measure`."""


@dataclass(frozen=True)
class StorePlan:
    """What is stored for which runs.

    Attributes:
        folder: path or URI of the store.
        mode: the option ``store``.
        budget_bytes: what the store may take.
        groups: runs that share their targets.
        decisions: by the shape of groups.
    """

    folder: str
    mode: Mode
    budget_bytes: int
    groups: tuple[Group, ...]
    decisions: dict[str, Decision]

    def lines(self) -> list[str]:
        """Return the decisions as a person reads them."""
        if not any(group.paths for group in self.groups):
            return []
        names = _titles(self.groups)
        return describe({names[shape]: decision for shape, decision in self.decisions.items()})

    def plain(self) -> list[dict[str, Any]]:
        """Return the decisions as plain data."""
        names = _titles(self.groups)
        return [{"group": names[shape], **vars(decision)} for shape, decision in self.decisions.items()]

    def stored(self, group: Group) -> tuple[str, ...]:
        """Return the group's paths that are stored."""
        return tuple(name for name in self.decisions[group.shape].stored if name in group.config["paths"])

    def job(self, config: Mapping[str, Any]) -> StoreJob | None:
        """Return what a run is told; ``None``: it asks its teacher and stores nothing."""
        if self.mode == "off" or config["teacher"] is None:
            return None
        shape = shape_of(config)
        for group in self.groups:
            if group.shape == shape:
                stored = stored_names(group, config, self.stored(group))
                return self.for_paths(stored) if self.decisions[group.shape].stored else None
        return None

    def keep_to_budget(self) -> None:
        """Remove stored targets of earlier experiments, those used least recently first, until the budget is kept."""
        if any(decision.stored for decision in self.decisions.values()):
            folder = Storage(self.folder)
            open_shards(folder.path if folder.is_local else folder.pyarrow()).make_room(0, self.budget_bytes)

    def for_paths(self, paths: Iterable[str]) -> StoreJob:
        """Return what whoever reads or fills these paths is told."""
        return StoreJob(self.folder, "float16" if self.mode == "float16" else "exact", tuple(paths))


def plan_store(
    runs: Iterable[PlannedRun], *, mode: Mode, budget_gib: float, storage: Storage, measure: Measure
) -> StorePlan:
    """Decide which targets of these runs are stored.

    Args:
        runs: that have not ended yet.
        mode: the option ``store``.
        budget_gib: the option ``run.store_gib``.
        storage: the root of all outputs.
        measure: measures what asking, keeping and reading cost.
    """
    groups = tuple(group_runs(runs))
    budget = int(budget_gib * GIB)
    by_shape: dict[str, list[Group]] = {}
    for group in groups:
        by_shape.setdefault(group.shape, []).append(group)
    decisions = {}
    left = float(budget)
    for shape, alike in by_shape.items():
        if mode == "off":
            decisions[shape] = ask_always(alike, "store: off")
        elif mode == "auto" and is_asked_once(alike):
            decisions[shape] = ask_always(alike, "no image is asked about twice")
        else:
            measured = Measurement(**measure(_with_all_paths(alike)))
            decisions[shape] = decide(alike, measured, mode=mode, budget_bytes=left)
        left -= decisions[shape].stored_bytes
    return StorePlan(storage.child(FOLDER).uri, mode, budget, groups, decisions)


def _with_all_paths(groups: list[Group]) -> dict[str, Any]:
    paths = {name: spec for group in groups for name, spec in group.config["paths"].items()}
    return {**groups[0].config, "paths": paths}


def _titles(groups: Iterable[Group]) -> dict[str, str]:
    """Return a short name for each shape; empty where there is only one."""
    shapes = list(dict.fromkeys(group.shape for group in groups))
    if len(shapes) == 1:
        return {shapes[0]: ""}
    configs = {group.shape: group.config for group in groups}
    return {
        shape: f"{_short(configs[shape]['teacher'])} to {_short(configs[shape]['student'])} ({number})"
        for number, shape in enumerate(shapes, start=1)
    }


def _short(section: Mapping[str, Any]) -> str:
    return str(section["model"]["use"]).rpartition(".")[2]
