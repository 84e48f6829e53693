"""What a file will do, in words, before it does it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from orchestrator.branch import Branch
from orchestrator.config.design import Design
from orchestrator.config.labels import scalar
from orchestrator.config.path_sets import PATHS
from orchestrator.config.search import AGGREGATOR
from orchestrator.config.sections import RunOptions
from orchestrator.store import StorePlan


def plan_lines(design: Design) -> list[str]:
    """Return the number of runs, then each known run by what makes it differ, then what is left out and why."""
    planned = design.planned()
    lines = [count_line(design)]
    width = max((len(run.arm) for run in planned), default=0)
    lines += [f"  {run.key}  {run.arm.ljust(width)}  seed {run.seed}" for run in planned]
    if design.is_sampled:
        varied = ", ".join(key for key, domain in design.domains.items() if len(domain.choices) > 1)
        lines.append(f"  then {design.experiment.run.num_arms} arms over {varied}, proposed one by one")
    return lines + [f"  {note}" for note in design.notes]


def count_line(design: Design) -> str:
    """Return ``30 runs = 9 arms (3 aggregators x 3 path sets) x 3 seeds + 3 of the student alone``."""
    counts = count_runs(design)
    if design.experiment.search is None:
        return "1 run"
    grids = {key: len(domain.choices) for key, domain in design.domains.items() if not domain.is_sampled}
    names = {AGGREGATOR: "aggregators", PATHS: "path sets"}
    factors = " x ".join(f"{number} {names.get(key, key)}" for key, number in grids.items() if number > 1)
    if math.prod(grids.values()) != counts["arms"]:
        factors = f"of {factors}"
    how = f"proposed by {design.experiment.run.searcher}" if design.is_sampled else factors
    arms = f"{counts['arms']} arms ({how})" if how else f"{counts['arms']} arm"
    alone = f" + {counts['alone']} of the student alone" if counts["alone"] else ""
    return f"{counts['total']} runs = {arms} x {counts['seeds']} seeds{alone}"


def count_runs(design: Design) -> dict[str, int]:
    """Return the numbers of arms, seeds, runs of the student alone, and all runs."""
    arms = design.experiment.run.num_arms if design.is_sampled else len(design.arms())
    seeds, alone = len(design.seeds), len(design.controls())
    return {"arms": arms or 0, "seeds": seeds, "alone": alone, "total": (arms or 0) * seeds + alone}


@dataclass(frozen=True)
class Plan:
    """All that a check finds out.

    Attributes:
        design: the runs.
        branches: the pairs of models.
        samples: number of images for each split; ``None``: there is no such split.
        num_leaked: how many of the images that aggregators hold out the teacher trains on.
        store: which targets are stored.
        undecidable: paths whose effect the design cannot tell, with the reason.
        decidable: the smallest effect of each path that four of five such sweeps would decide, in units of the
            noise of one run, which is known afterwards.
        outputs: where results go.
    """

    design: Design
    branches: tuple[Branch, ...]
    samples: dict[str, int | None]
    num_leaked: int
    store: StorePlan
    undecidable: dict[str, str]
    decidable: dict[str, float]
    outputs: str

    def plain(self) -> dict[str, Any]:
        """Return plain data for ``--json``."""
        experiment = self.design.experiment
        return {
            "name": experiment.name,
            "config_hash": experiment.config_hash,
            "runs": count_runs(self.design),
            "branches": [branch.plain() for branch in self.branches],
            "samples": self.samples,
            "leaked": self.num_leaked,
            "resources": _resources(experiment.run),
            "store": self.store.plain(),
            "left_out": self.design.notes,
            "undecidable": self.undecidable,
            "decidable": self.decidable,
            "outputs": self.outputs,
            "config": experiment.config,
        }

    def lines(self) -> list[str]:
        """Return the plan as a person reads it."""
        experiment = self.design.experiment
        parts = [f"{number:,} {name}" for name, number in self.samples.items() if number is not None]
        lines = [f"{experiment.name}: {count_line(self.design)}"]
        lines += [line for branch in self.branches for line in _branch_lines(branch, experiment.run.workers)]
        lines.append(f"Images: {', '.join(parts)}" if parts else "Images: not counted")
        if self.samples.get("validation", 0) is None:
            lines.append("  protocol 'paper': no validation split; results are ranked on the test split and marked so")
        if self.num_leaked:
            lines.append(
                f"  the teacher trains on {self.num_leaked:,} of those held out: weights learned there credit "
                "distillation with what it memorised; split.teacher: rest keeps them from it"
            )
        if experiment.teacher is not None:
            training = experiment.teacher.train
            lines.append(f"The teacher: {'as it is loaded' if training is None else _once(training['epochs'])}")
        lines.append(f"Each run: {experiment.train.epochs} epochs; {_resource_words(experiment.run)}")
        lines += self.store.lines()
        lines += [f"Note: {note}" for note in self.design.notes]
        lines += _decidable_lines(self.design, self.decidable)
        lines += [f"Cannot tell: the effect of {path}: {reason}" for path, reason in self.undecidable.items()]
        lines.append(f"Results: {self.outputs}")
        return lines


def _decidable_lines(design: Design, decidable: Mapping[str, float]) -> list[str]:
    """Return how small an effect the sweep can decide, and in what unit; or why nobody knows."""
    experiment = design.experiment
    if experiment.search is None or not experiment.paths:
        return []
    if len(design.seeds) == 1:
        return ["Nothing can be decided with one seed, which shows no noise: give search.seed several"]
    if design.is_sampled:
        return ["What can be decided is not known beforehand: with run.num_arms, arms are proposed one by one"]
    if not decidable:
        return []
    shown = ", ".join(f"{name} {value:.1f}" for name, value in decidable.items())
    return [
        f"Smallest effects that four of five such sweeps would decide, in units of the noise of one run: {shown}",
        "  the noise of one run, in points of the metric, is measured by the sweep itself, across its seeds",
    ]


def _once(epochs: int) -> str:
    return f"trained once, for {epochs} epochs, unless it is stored already"


def _branch_lines(branch: Branch, workers: int) -> list[str]:
    shape = "x".join(map(str, branch.image_shape))
    lines = [
        f"Student {branch.student}, {branch.student_parameters:,} parameters, on {branch.data} "
        f"({shape}, {branch.num_classes} classes)"
    ]
    if branch.teacher is not None:
        size = f"{branch.teacher_parameters:,} parameters, {branch.compression:.1f} times the student"
        lines.append(f"Teacher {branch.teacher}, {size}")
    for path in branch.paths:
        adapters = f"{path.adapter_parameters:,} adapter parameters" if path.adapter_parameters else "no adapter"
        whose = {"share": "the images of each worker's own share", "batch": "the images of all workers"}
        compares = f", compares {whose[path.compares]}" if path.compares and workers > 1 else ""
        lines.append(f"  {path.name}: {path.use}, {adapters}{compares}")
        lines += [
            f"    {pair.student} {list(pair.student_shape)} <- {pair.teacher} {list(pair.teacher_shape)}"
            for pair in path.connections
        ]
    return lines + [f"  {message}" for message in branch.messages]


def _resources(run: RunOptions) -> dict[str, Any]:
    return {
        "workers": run.workers,
        "cpus": run.workers * run.cpus_per_worker,
        "gpus": run.gpus_per_worker if run.gpus_per_worker == "auto" else run.workers * run.gpus_per_worker,
        "max_concurrent": run.max_concurrent,
    }


def _resource_words(run: RunOptions) -> str:
    workers = "1 worker" if run.workers == 1 else f"{run.workers} workers"
    gpus = f" and {scalar(run.gpus_per_worker)} GPU" if run.gpus_per_worker else ""
    if run.gpus_per_worker == "auto":
        gpus = " and as much of a GPU as it is seen to need"
    at_once = f"; at most {run.max_concurrent} at a time" if run.max_concurrent else "; as many at a time as fit"
    return f"{workers} with {run.cpus_per_worker} CPU{gpus}{' each' if run.workers > 1 else ''}{at_once}"
