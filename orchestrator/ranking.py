"""What ranks the runs of an experiment."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, Self

VALIDATION = "val/"
"""What the names of metrics that can rank runs begin with."""

DEFAULT_METRIC = f"{VALIDATION}accuracy"
"""What ranks the runs of an experiment that does not say."""


@dataclass(frozen=True)
class Ranking:
    """The metric that ranks runs, and which end of it is the better one.

    Attributes:
        metric: the metric as reports name it, such as ``val/accuracy``.
        mode: whether more of it is better.
    """

    metric: str
    mode: Literal["max", "min"]

    @classmethod
    def of(cls, description: Mapping[str, Any]) -> Self:
        """Read it from ``experiment.json``, or from the section ``run`` of a resolved configuration."""
        return cls(
            str(description.get("metric") or DEFAULT_METRIC), "min" if description.get("mode") == "min" else "max"
        )

    @property
    def name(self) -> str:
        """The metric's name without its split, such as ``accuracy``."""
        return self.metric.removeprefix(VALIDATION)

    @property
    def sign(self) -> int:
        """Factor that makes a larger number the better one."""
        return 1 if self.mode == "max" else -1
