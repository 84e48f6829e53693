"""Where a training runs: the seam between the one training function and its surroundings."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

import torch
from torch import nn


class Host(Protocol):
    """Gives a training its rank, its device, and a way to report and to be stopped.

    Implementations: :class:`LocalHost` here; a Ray Tune trial and a Ray Train worker in ``orchestrator``.
    """

    @property
    def rank(self) -> int: ...

    @property
    def world_size(self) -> int: ...

    @property
    def device(self) -> torch.device: ...

    def prepare(self, module: nn.Module, *, find_unused_parameters: bool) -> nn.Module:
        """Return the module to call: wrapped in DDP where there are several ranks."""
        ...

    def report(self, metrics: Mapping[str, Any]) -> None:
        """Hand over one epoch's metrics (flat, JSON-able). Every rank calls it equally often."""
        ...

    def should_stop(self) -> bool:
        """Whether someone asked this training to end after the epoch; the same answer on every rank."""
        ...


class LocalHost:
    """This very process: one rank; reports are kept in :attr:`history` and handed to ``on_report``.

    Args:
        device: where to train; default: the first GPU if there is one, else the CPU.
        on_report: called with each epoch's metrics.
    """

    rank = 0
    world_size = 1

    def __init__(self, device: torch.device | None = None, on_report: Any = None) -> None:
        self.device = device or torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self.history: list[dict[str, Any]] = []
        self._on_report = on_report

    def prepare(self, module: nn.Module, *, find_unused_parameters: bool) -> nn.Module:
        """Return the module as it is."""
        return module

    def report(self, metrics: Mapping[str, Any]) -> None:
        """Keep the metrics and pass them on."""
        self.history.append(dict(metrics))
        if self._on_report is not None:
            self._on_report(dict(metrics))

    def should_stop(self) -> bool:
        """Never asked to stop."""
        return False
