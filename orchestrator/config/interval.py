"""A searched key with a range of values."""

from __future__ import annotations

import math
import random
from dataclasses import dataclass
from typing import Any

from orchestrator.config.domain import Choice, Domain

SIGNIFICANT_DIGITS = 4


@dataclass(frozen=True)
class Interval(Domain):
    """``{uniform: [low, high]}`` or, evenly in the exponent, ``{loguniform: [low, high]}``.

    Values have four significant digits, so that what a table shows is the value itself.

    Attributes:
        key: dotted key of the file.
        low: smallest value.
        high: largest value.
        is_logarithmic: whether values are even in the exponent.
        origin: key of the file under which the range stands.
    """

    key: str
    low: float
    high: float
    is_logarithmic: bool
    origin: str
    is_sampled: bool = True

    @property
    def choices(self) -> tuple[Choice, ...]:  # type: ignore[override]
        """The two ends."""
        return (self.at(self.low), self.at(self.high))

    def draw(self, generator: random.Random) -> Choice:
        if self.is_logarithmic:
            return self.at(math.exp(generator.uniform(math.log(self.low), math.log(self.high))))
        return self.at(generator.uniform(self.low, self.high))

    def at(self, assigned: Any) -> Choice:
        value = min(max(float(f"{assigned:.{SIGNIFICANT_DIGITS}g}"), self.low), self.high)
        return Choice(f"{value:g}", value, self.origin)

    def assigned(self, choice: Choice) -> float:
        return float(choice.value)

    def distribution(self) -> Any:
        from optuna.distributions import FloatDistribution

        return FloatDistribution(self.low, self.high, log=self.is_logarithmic)
