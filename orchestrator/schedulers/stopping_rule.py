"""The contract of an early-stopping rule."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, Literal


class StoppingRule(ABC):
    """Decides on arms by their metric after an epoch; made from options alone, before Ray is imported."""

    @abstractmethod
    def build(self, *, metric: str, mode: Literal["min", "max"], num_epochs: int) -> Any:
        """Return a Ray ``TrialScheduler`` for results that hold ``epoch`` and ``metric``.

        Args:
            metric: what the rule goes by.
            mode: whether more of it is better.
            num_epochs: epochs of the longest run.
        """
