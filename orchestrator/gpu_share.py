"""How many runs share a GPU: as many as its memory holds, from what one run was seen to take."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch

from distill.host import Host
from distill.optimization import optimizer_maker, parameter_groups
from distill.targets import TargetSource
from orchestrator.assemble import resolve_optimizer
from orchestrator.config.sections import RunOptions
from orchestrator.demand import Demand
from orchestrator.job import Job
from orchestrator.node_group import NodeGroup
from orchestrator.preparation import prepare
from orchestrator.store.measurement import untaught

USABLE = 0.9
"""Share of a GPU's memory that runs may take together: their peaks differ, and memory is torn into pieces."""

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


def measure_memory(config: Mapping[str, Any], host: Host) -> Memory:
    """Make one optimiser step and evaluate one batch, and see what the GPU has left.

    Args:
        config: of a run; the weights do not matter.
        host: whose GPU belongs to this process alone.
    """
    prepared = prepare(Job(config=untaught(config), config_hash="", directory="", role="trial"), host)
    distiller, loader = prepared.distiller.train(), prepared.loaders.train
    kind, options = resolve_optimizer(config["train"]["optimizer"], tuple(config["modules"]))
    optimizer = optimizer_maker(kind, options)(parameter_groups(distiller))
    batch = next(iter(loader.epoch(0)))
    source = TargetSource(distiller, prepared.teacher)
    distiller(batch, source.targets(batch)).total.backward()
    optimizer.step()
    with torch.no_grad():
        distiller.student.eval()(next(iter(prepared.loaders.test.epoch(0))).images)
    torch.cuda.synchronize(host.device)
    free, total = torch.cuda.mem_get_info(host.device)
    return total - free, total
