"""A searched key with a list of values."""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Any

from distill.schema import nearest, suggestion
from orchestrator.config.domain import Choice, Domain


@dataclass(frozen=True)
class Listed(Domain):
    """``{grid: [...]}`` tries all values, ``{choice: [...]}`` draws from them."""

    key: str
    choices: tuple[Choice, ...]
    is_sampled: bool = False

    def draw(self, generator: random.Random) -> Choice:
        return generator.choice(self.choices)

    def at(self, assigned: Any) -> Choice:
        for choice in self.choices:
            if choice.label == assigned:
                return choice
        labels = [choice.label for choice in self.choices]
        question = suggestion(nearest(str(assigned), labels))
        raise ValueError(f"search.{self.key} has no value '{assigned}'; it has {', '.join(labels)}.{question}")

    def assigned(self, choice: Choice) -> str:
        return choice.label

    def distribution(self) -> Any:
        from optuna.distributions import CategoricalDistribution

        return CategoricalDistribution([choice.label for choice in self.choices])
