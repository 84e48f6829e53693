"""What ``experiment.json`` says about a sweep."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from orchestrator.ranking import Ranking


@dataclass(frozen=True)
class Experiment:
    """A sweep as a whole: its question, its metric and where it comes from.

    Attributes:
        name: name of the experiment.
        metric: the metric that ranks, such as ``val/accuracy``.
        mode: ``max`` or ``min``.
        protocol: ``holdout``, or ``paper`` where nothing was held out for validation.
        planned: number of runs planned, None where it is open.
        config: the resolved experiment file.
        details: everything else, for the report.
    """

    name: str
    metric: str
    mode: str
    protocol: str
    planned: int | None
    config: Mapping[str, Any]
    details: Mapping[str, Any]

    @classmethod
    def parse(cls, data: Mapping[str, Any]) -> Experiment:
        """Read the object in ``experiment.json``.

        Raises:
            ValueError: ``name`` is missing, or mode or protocol has an unknown value.
        """
        if "name" not in data:
            raise ValueError("lacks name")
        mode, protocol = data.get("mode", "max"), data.get("protocol", "holdout")
        if mode not in ("max", "min"):
            raise ValueError(f"mode must be max or min, found {mode!r}")
        if protocol not in ("holdout", "paper"):
            raise ValueError(f"protocol must be holdout or paper, found {protocol!r}")
        planned = data.get("planned")
        return cls(
            name=str(data["name"]),
            metric=Ranking.of(data).metric,
            mode=mode,
            protocol=protocol,
            planned=planned if isinstance(planned, int) else None,
            config=dict(data.get("config") or {}),
            details=dict(data),
        )

    @property
    def seeds(self) -> tuple[int, ...]:
        """The seeds that every arm is run on, as far as the file says; empty where it does not."""
        domain = (self.config.get("search") or {}).get("seed")
        values = next(iter(domain.values()), None) if isinstance(domain, Mapping) else domain
        if isinstance(values, list) and all(isinstance(seed, int) for seed in values):
            return tuple(values)
        seed = self.config.get("seed")
        return (seed,) if isinstance(seed, int) and domain is None else ()

    @property
    def question(self) -> str:
        """The question that the sweep asks, as a title."""
        student, teacher = self.details.get("student_label"), self.details.get("teacher_label")
        data = self.details.get("data_label")
        title = f"Which paths help {student or 'the student'} learn from {teacher or 'the teacher'}"
        return f"{title} on {data}?" if data else f"{title}?"
