"""All arms, in order."""

from __future__ import annotations

from collections.abc import Sequence

from orchestrator.config.arm import Arm


class GridProposer:
    """Proposes each of ``arms`` once."""

    def __init__(self, arms: Sequence[Arm]) -> None:
        self._waiting = {arm.name: arm for arm in arms}

    def propose(self) -> Arm | None:
        """Return the next arm; ``None``: there are no more."""
        name = next(iter(self._waiting), None)
        return None if name is None else self._waiting.pop(name)

    def tell(self, arm: Arm, value: float | None) -> None:
        """Learn nothing; an arm of an earlier attempt is done."""
        self._waiting.pop(arm.name, None)
