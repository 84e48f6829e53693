"""How many runs share a GPU: as many as its memory holds, from what one run was seen to take."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import lru_cache
from typing import Any

import torch

from distill.aggregators import Aggregator
from distill.build import build
from distill.diagnosis import Diagnosis
from distill.gradient_scope import Scope
from distill.host import Host
from distill.optimization import optimizer_maker, parameter_groups
from distill.slots import AGGREGATOR
from distill.targets import TargetSource
from orchestrator.assemble import resolve_optimizer
from orchestrator.config import PlannedRun
from orchestrator.config.sections import RunOptions
from orchestrator.demand import Demand
from orchestrator.job import Job
from orchestrator.node_group import NodeGroup
from orchestrator.preparation import prepare
from orchestrator.store.group import group_runs, shape_of
from orchestrator.store.measurement import untaught

USABLE = 0.9
"""Share of a GPU's memory that runs may take together: their peaks differ, and memory is torn into pieces."""

SCOPES: tuple[Scope, ...] = ("taps", "last", "all")
"""Where gradients are looked at, from the least memory to the most."""

Memory = tuple[int, int]
"""Bytes that one run took of a GPU, its context included, and bytes that the GPU has."""


def find_demand(
    run: RunOptions,
    groups: Sequence[NodeGroup],
    *,
    measure: Callable[[], Sequence[Memory]],
    say: Callable[[str], None],
) -> Demand:
    """Return what each run asks of the cluster; ``gpus_per_worker: auto`` is decided here.

    ``auto`` is nothing where no node has a GPU, a whole GPU for each of several workers, and else the share that the
    most demanding run was seen to need.

    Args:
        run: the section of the file.
        groups: the nodes that there are or can be.
        measure: returns what runs took of a GPU, those of different models or data; asked only where needed.
        say: prints one line.
    """
    cpus = int(run.cpus_per_worker)
    if run.gpus_per_worker != "auto":
        return Demand(run.workers, cpus, run.gpus_per_worker)
    with_gpu = [group for group in groups if group.resources.get("GPU", 0) >= 1]
    if not with_gpu:
        return Demand(run.workers, cpus, 0)
    if run.workers > 1:
        return Demand(run.workers, cpus, 1)
    used, total = max(measure(), key=lambda memory: memory[0] / memory[1], default=(1, 1))
    most = max(int(group.resources["CPU"] // cpus // group.resources["GPU"]) for group in with_gpu)
    share = share_of_gpu(used, total, most=most)
    say(
        f"a run takes {used / 2**30:.1f} of a GPU's {total / 2**30:.1f} GiB: {round(1 / share)} at a time share one "
        f"(run.gpus_per_worker={share:g})"
    )
    return Demand(1, cpus, share)


def share_of_gpu(used_bytes: int, total_bytes: int, *, most: int) -> float:
    """Return the share of a GPU to ask Ray for, which counts in steps of 0.0001.

    Args:
        used_bytes: of one run.
        total_bytes: of the GPU.
        most: runs that the CPUs beside one GPU can serve.
    """
    runs = max(1, min(most, int(USABLE * total_bytes / max(1, used_bytes))))
    return math.floor(10_000 / runs) / 10_000


def demanding_configs(runs: Iterable[PlannedRun]) -> list[dict[str, Any]]:
    """Return what to measure, for each kind of run: all paths of its group, and the run that looks at most gradients.

    The former has Equal for an aggregator, which takes any paths and keeps no gradient; hence the latter, where some
    run looks at any.
    """
    known = list(runs)
    configs = {group.shape: group.config for group in group_runs(known)}
    looking: dict[str, tuple[tuple[int, ...], dict[str, Any]]] = {}
    for run in known:
        demand = _looks(json.dumps(run.config["aggregator"], sort_keys=True), tuple(run.config["modules"]))
        if run.config["teacher"] is None or not run.paths or not any(demand):
            continue
        shape, rank = shape_of(run.config), (*demand, len(run.paths))
        if shape not in looking or rank > looking[shape][0]:
            looking[shape] = (rank, run.config)
    return [*configs.values(), *(config for _, config in looking.values())]


@lru_cache(maxsize=4096)
def _looks(spec: str, modules: tuple[str, ...]) -> tuple[int, ...]:
    """Return what ranks aggregators by the gradients that they look at; zeros for one that looks at none."""
    aggregator: Aggregator = build(json.loads(spec), AGGREGATOR, modules=modules)
    deepest = max((SCOPES.index(scope) + 1 for scope in aggregator.needs.gradients), default=0)
    return deepest, int(deepest > 0 and aggregator.granularity == "layer")


def measure_memory(config: Mapping[str, Any], host: Host) -> Memory:
    """Make one step of the training, the first, in which all that looks at gradients does, and evaluate one batch.

    Args:
        config: of a run; the weights do not matter.
        host: whose GPU belongs to this process alone.

    Returns:
        What the GPU has no more, and what it has.
    """
    prepared = prepare(Job(config=untaught(config), config_hash="", directory="", role="trial"), host)
    distiller, loader = prepared.distiller.train(), prepared.loaders.train
    kind, options = resolve_optimizer(config["train"]["optimizer"], tuple(config["modules"]))
    optimizer = optimizer_maker(kind, options)(parameter_groups(distiller))
    batch = next(iter(loader.epoch(0)))
    targets = TargetSource(distiller, prepared.teacher).targets(batch)
    diagnose, aggregator = config["train"]["diagnose"], distiller.aggregator
    distiller.advance(0.0)
    distiller(batch, targets, None if diagnose is None else Diagnosis(**diagnose).scope).total.backward()
    optimizer.step()
    again = distiller.look_again(batch, targets) if aggregator.needs.second_look else None
    apart = prepared.loaders.held_out if aggregator.wants_held_out else None
    aggregator.after_step(again, None if apart is None else distiller.held_out_gradients(apart.nth(0)))
    with torch.no_grad():
        distiller.student.eval()(next(iter(prepared.loaders.test.epoch(0))).images)
    torch.cuda.synchronize(host.device)
    free, total = torch.cuda.mem_get_info(host.device)
    return total - free, total
