"""What a spool already holds, so that a resumed sweep does not record it again."""

from __future__ import annotations

from collections.abc import Mapping

from orchestrator.tracking.operation import Operation


class Recorded:
    """The runs of a spool and how far each of their metrics has come.

    A resumed training repeats the epochs after its last checkpoint. MLflow keys a point by its time, so that repeating
    it would draw it twice: what was recorded for a step stays.
    """

    def __init__(self) -> None:
        self.runs: set[str] = set()
        self._last_step: dict[tuple[str, str], int] = {}
        self._results: dict[tuple[str, str], float] = {}

    def observe(self, operation: Operation) -> None:
        """Take note of an operation that stands in the spool."""
        key = operation.get("run", "")
        if operation["op"] == "start_run":
            self.runs.add(key)
        elif operation["op"] == "metrics":
            for name in operation["values"]:
                self._last_step[key, name] = operation["step"]
        elif operation["op"] == "results":
            for name, value in operation["values"].items():
                self._results[key, name] = value

    def new_metrics(self, key: str, values: Mapping[str, float], step: int) -> dict[str, float]:
        """Return those of ``values`` whose step lies after what was recorded of them."""
        return {name: value for name, value in values.items() if self._last_step.get((key, name), step - 1) < step}

    def new_results(self, key: str, values: Mapping[str, float]) -> dict[str, float]:
        """Return those of ``values`` that differ from what was recorded last."""
        return {name: value for name, value in values.items() if self._results.get((key, name)) != value}
