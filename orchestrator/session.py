"""What a driver does with the news of its runs: it writes them down, and tells MLflow."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from orchestrator.config.planned_run import PlannedRun
from orchestrator.held_out import held_out_share
from orchestrator.outputs import Outputs
from orchestrator.storage import Storage
from orchestrator.tracking import SweepLog
from orchestrator.trajectory_picture import PICTURE, TRAJECTORY

log = logging.getLogger(__name__)


class Session:
    """A listener of runs: records first, then the mirror.

    Args:
        outputs: the experiment's folder.
        sweep_log: MLflow's mirror of it.
    """

    def __init__(self, outputs: Outputs, sweep_log: SweepLog) -> None:
        self._outputs = outputs
        self._log = sweep_log
        self.num_failed = 0

    def started(self, run: PlannedRun) -> None:
        """Open the run in MLflow."""
        self._log.start_run(run)

    def reported(self, run: PlannedRun, metrics: Mapping[str, Any]) -> None:
        """Note one epoch."""
        self._outputs.reported(run.key, metrics)
        self._log.epoch(run.key, metrics)

    def ended(self, run: PlannedRun, result: Mapping[str, Any]) -> None:
        """Note the result, and show the trajectory beside it."""
        self._outputs.ended(record(run, result))
        if result["status"] == "failed":
            self.num_failed += 1
        trajectory, picture = self._pictured(run) if result["status"] == "finished" else (None, None)
        self._log.end_run(run, result, trajectory=trajectory, picture=picture)

    def _pictured(self, run: PlannedRun) -> tuple[Path | None, Path | None]:
        """Bring a run's trajectory and its picture to this machine; a student alone has none to show."""
        if not run.paths:
            return None, None
        trajectory, picture = (self._brought(run, name) for name in (TRAJECTORY, PICTURE))
        return trajectory, picture

    def _brought(self, run: PlannedRun, name: str) -> Path | None:
        storage, file = Storage(self._outputs.run_directory(run.key)), self._outputs.folder / "runs" / run.key / name
        if not file.exists():
            if not storage.exists(name):
                return None
            storage.download(name, file)
        return file


def record(run: PlannedRun, result: Mapping[str, Any]) -> dict[str, Any]:
    """Return the line of ``runs.jsonl`` of a run that ended."""
    return {
        "key": run.key,
        "name": run.name,
        "arm": run.arm,
        "aggregator": run.aggregator,
        "paths": list(run.paths),
        "seed": run.seed,
        "kind": run.kind,
        "context": run.context,
        "config_hash": run.config_hash,
        "assignment": run.assignment,
        "held_out": held_out_share(run.config),
        "result": dict(result),
    }
