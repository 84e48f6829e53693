"""Real gloo ranks, each a process of its own."""

from __future__ import annotations

import datetime
import multiprocessing
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.multiprocessing

# What one process imports from which all ranks are forked: to import it anew would take most of their time.
PRELOADED = (
    "torch.distributed",
    "torch._dynamo",
    "torchvision",
    "torchmetrics.detection",
    "distill.trainer",
    "distill.tasks",
)


def on_ranks(measure: Callable[[int], Any], folder: Path, world_size: int = 2) -> list[Any]:
    """Return what a module's function gives on each of these ranks, called with its number: tensors and plain data."""
    multiprocessing.set_forkserver_preload(list(PRELOADED))
    torch.multiprocessing.start_processes(
        _work, args=(measure, world_size, str(folder)), nprocs=world_size, start_method="forkserver"
    )
    return [torch.load(folder / f"rank{rank}.pt", weights_only=True) for rank in range(world_size)]


def _work(rank: int, measure: Callable[[int], Any], world_size: int, folder: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group(
        "gloo",
        init_method=f"file://{folder}/store",
        rank=rank,
        world_size=world_size,
        timeout=datetime.timedelta(seconds=60),
    )
    torch.save(measure(rank), f"{folder}/rank{rank}.pt")
    dist.barrier()  # who leaves while another still talks to it takes that one along
    dist.destroy_process_group()
