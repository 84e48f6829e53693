"""One line of ``runs.jsonl``: a run that ended, however it ended."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

REQUIRED = ("key", "arm", "aggregator", "paths", "seed", "kind", "result")
STATUSES = ("finished", "stopped", "failed")


@dataclass(frozen=True)
class RunRecord:
    """A run that ended: finished, stopped by the scheduler, or failed.

    Attributes:
        key: short stable name of the run, unique in the sweep.
        name: what a person calls it.
        arm: the arm that the run belongs to; runs of one arm differ in their seed only.
        aggregator: label of the aggregator, ``none`` for the student alone.
        paths: sorted names of the paths, empty for the student alone.
        seed: seed of the run.
        kind: ``run``, or ``student`` for the student alone.
        context: other keys that the sweep varies, with this arm's values.
        status: ``finished``, ``stopped`` or ``failed``.
        result: the result as the training wrote it.
        run_id: id of the MLflow run, where there is one.
        held_out: share of the training images that the student did not train on; 0 where the record does not say.
    """

    key: str
    name: str
    arm: str
    aggregator: str
    paths: tuple[str, ...]
    seed: int
    kind: str
    context: Mapping[str, Any]
    status: str
    result: Mapping[str, Any]
    run_id: str | None
    held_out: float

    @classmethod
    def parse(cls, line: str) -> RunRecord:
        """Read one line of ``runs.jsonl``.

        Raises:
            ValueError: the line is torn, or a key is missing or of the wrong kind.
        """
        try:
            data = json.loads(line)
        except json.JSONDecodeError as error:
            raise ValueError(f"not a whole JSON object ({error.msg} at character {error.pos})") from None
        if not isinstance(data, dict):
            raise ValueError(f"expected a JSON object, found {type(data).__name__}")
        missing = [key for key in REQUIRED if key not in data]
        if missing:
            raise ValueError(f"lacks {', '.join(missing)}")
        result = data["result"]
        status = result.get("status") if isinstance(result, dict) else None
        if status not in STATUSES:
            raise ValueError(f"result.status must be one of {', '.join(STATUSES)}, found {status!r}")
        if not isinstance(data["seed"], int) or not isinstance(data["paths"], list):
            raise ValueError(f"seed must be an integer and paths a list, found {data['seed']!r} and {data['paths']!r}")
        return cls(
            key=str(data["key"]),
            name=str(data.get("name") or data["key"]),
            arm=str(data["arm"]),
            aggregator=str(data["aggregator"]),
            paths=tuple(sorted(str(path) for path in data["paths"])),
            seed=data["seed"],
            kind=str(data["kind"]),
            context=dict(data.get("context") or {}),
            status=status,
            result=result,
            run_id=data.get("run_id"),
            held_out=_finite(data.get("held_out")) or 0.0,
        )

    def measured(self, split: str, metric: str) -> float | None:
        """Return ``result[split][metric]``, or None where it was not measured or is not finite."""
        return _finite((self.result.get(split) or {}).get(metric))

    def teacher(self, split: str, metric: str) -> float | None:
        """Return the teacher's ``metric`` on ``split``, or None where there is none."""
        return _finite(((self.result.get("teacher") or {}).get(split) or {}).get(metric))

    @property
    def minutes(self) -> float | None:
        """How long the run took."""
        return _finite(self.result.get("minutes"))


def _finite(value: Any) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return None
    return float(value)
