"""The contract of what decides which arm a sweep tries next."""

from __future__ import annotations

from typing import Protocol

from orchestrator.config.arm import Arm


class ArmProposer(Protocol):
    """Proposes arms one by one; each is run on all seeds before its value is told.

    An arm that was not proposed here but is told (a sweep that goes on after an interruption) counts as proposed: it
    is learned from and not proposed again.
    """

    def propose(self) -> Arm | None:
        """Return the next arm; ``None``: there are no more."""
        ...

    def tell(self, arm: Arm, value: float | None) -> None:
        """Take in the mean of an arm's metric over its seeds; ``None``: the arm was stopped or has failed."""
        ...
