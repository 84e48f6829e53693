"""A process that fills the target store for runs of any number of workers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from orchestrator.hosts.device import assigned_device


class FillingHost:
    """A Ray task that asks the teacher as rank 0 of a run would.

    Args:
        cpus_per_worker: threads for torch, as the runs have.
        workers: of a run; they decide how many images a rank asks about at once.
    """

    rank = 0

    def __init__(self, *, cpus_per_worker: int, workers: int) -> None:
        torch.set_num_threads(cpus_per_worker)
        self.world_size = workers
        self.device = assigned_device()

    def prepare(self, module: nn.Module, *, find_unused_parameters: bool) -> nn.Module:
        """Return the module as it is: nothing is trained."""
        return module

    def report(self, metrics: Mapping[str, Any]) -> None:
        """Nothing is trained, so there is nothing to report."""

    def should_stop(self) -> bool:
        """Never asked to stop: the driver cancels the task."""
        return False
