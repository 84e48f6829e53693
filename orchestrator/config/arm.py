"""An arm: what all runs that differ only by seed have in common."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from orchestrator.config.domain import Choice
from orchestrator.config.labels import scalar
from orchestrator.config.path_sets import PATHS
from orchestrator.config.search import AGGREGATOR


@dataclass(frozen=True)
class Arm:
    """One value for each searched key but the seed.

    Attributes:
        choices: by key; ``paths`` and ``aggregator`` are always among them.
    """

    choices: Mapping[str, Choice]

    @property
    def paths(self) -> tuple[str, ...]:
        """The names of its path set, in the file's order."""
        return tuple(self.choices[PATHS].value)

    @property
    def context(self) -> dict[str, Any]:
        """What varies besides path set and aggregator, as far as it concerns this arm's paths."""
        return {key: choice.shown for key, choice in self._others().items()}

    @property
    def name(self) -> str:
        """``adaptive/soft_target+attention lr=0.1``; ``alone`` for the student alone."""
        head = f"{self.choices[AGGREGATOR].label}/{self.choices[PATHS].label}" if self.paths else "alone"
        others = self._others()
        tails = short_names(list(others))
        suffixes = [f"{tails[key]}={scalar(choice.shown)}" for key, choice in others.items()]
        return " ".join([head, *suffixes])

    def _others(self) -> dict[str, Choice]:
        kept = {key: choice for key, choice in self.choices.items() if key not in (PATHS, AGGREGATOR)}
        foreign = [key for key in kept if key.startswith(f"{PATHS}.") and key.split(".")[1] not in self.paths]
        if not self.paths:
            foreign += [key for key in kept if key.startswith(f"{AGGREGATOR}.")]
        return {key: choice for key, choice in kept.items() if key not in foreign}


def short_names(keys: list[str]) -> dict[str, str]:
    """Return the shortest tail of each dotted key that no other key ends with: ``train.optimizer.lr`` is ``lr``."""
    names = {}
    for key in keys:
        parts = key.split(".")
        tails = [".".join(parts[start:]) for start in range(len(parts) - 1, -1, -1)]
        others = [other for other in keys if other != key]
        names[key] = next(
            (tail for tail in tails if not any(f".{other}".endswith(f".{tail}") for other in others)), key
        )
    return names
