"""A training as a Ray Tune trial of its own: one process, one rank."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from ray import tune
from torch import nn

from orchestrator.hosts.device import assigned_device
from orchestrator.hosts.messages import pack_report


class TuneHost:
    """The Tune trial that this process is.

    Args:
        cpus_per_worker: threads for torch; they belong to a run's identity, because sums depend on them.
        is_asked_to_stop: whether the driver wants the run to end after the epoch.
    """

    rank = 0
    world_size = 1

    def __init__(self, *, cpus_per_worker: int, is_asked_to_stop: Callable[[], bool]) -> None:
        torch.set_num_threads(cpus_per_worker)
        self.device = assigned_device()
        self._is_asked_to_stop = is_asked_to_stop

    def prepare(self, module: nn.Module, *, find_unused_parameters: bool) -> nn.Module:
        """Return the module as it is."""
        return module

    def report(self, metrics: Mapping[str, Any]) -> None:
        """Hand over one epoch's metrics; returns once the driver has decided whether the run goes on."""
        tune.report(pack_report(metrics))

    def should_stop(self) -> bool:
        """Whether the driver asked the run to end."""
        return self._is_asked_to_stop()
