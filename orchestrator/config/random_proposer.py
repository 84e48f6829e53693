"""Arms at random."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

from orchestrator.config.arm import Arm

if TYPE_CHECKING:
    from orchestrator.config.design import Design

TRIES = 100
"""How often an arm is drawn again because it was drawn before, or is refused."""


class RandomProposer:
    """Goes round the combinations of the grids in random order, so that each gets its share, and draws the rest.

    The sequence follows from the seed alone: it is the same after an interruption.

    Args:
        design: what to draw from.
        num_arms: how many arms to propose.
        seed: of the draws.

    Raises:
        ValueError: an aggregator refuses every path set.
    """

    def __init__(self, design: Design, *, num_arms: int, seed: int) -> None:
        self._design = design
        self._left = num_arms
        self._generator = random.Random(f"{seed} arms")  # noqa: S311  # reproducible, not secret
        self._combinations = design.arms()
        if not self._combinations:
            raise ValueError("every aggregator refuses every path set; see the notes of the design")
        self._generator.shuffle(self._combinations)
        self._seen: set[str] = set()
        self._position = 0

    def propose(self) -> Arm | None:
        """Return the next arm; ``None``: ``num_arms`` were proposed, or nothing new can be drawn."""
        for _ in range(TRIES + len(self._combinations)):
            if self._left == 0:
                return None
            arm = self._draw()
            if arm.name in self._seen:
                continue
            self._seen.add(arm.name)
            self._left -= 1
            return arm
        return None

    def tell(self, arm: Arm, value: float | None) -> None:
        """Learn nothing; an arm of an earlier attempt counts as proposed."""
        if arm.name not in self._seen:
            self._seen.add(arm.name)
            self._left -= 1

    def _draw(self) -> Arm:
        combination = self._combinations[self._position % len(self._combinations)]
        self._position += 1
        drawn = {key: domain.draw(self._generator) for key, domain in self._design.domains.items() if domain.is_sampled}
        return Arm({**combination.choices, **drawn})
