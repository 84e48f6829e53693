"""How far MLflow has a spool."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path

from orchestrator.tracking.target import Target, replace_file

FILE_NAME = "cursor.json"


@dataclass
class Cursor:
    """What the mirror knows: the bytes of the spool that MLflow has, and MLflow's identifiers.

    It may be lost or old: replaying operations changes nothing in MLflow.

    Args:
        tracking_uri: the store that this is about.
        experiment_id: MLflow's identifier of the experiment.
        offset: bytes of the spool that MLflow has.
        num_sent: operations among them.
        runs: MLflow's run id of each of our keys.
        open_runs: keys of runs that were started and not ended.
        error: why the last attempt failed; empty when it did not.
        mirror_pid: the process that wrote this.
    """

    tracking_uri: str
    experiment_id: str | None = None
    offset: int = 0
    num_sent: int = 0
    runs: dict[str, str] = field(default_factory=dict)
    open_runs: list[str] = field(default_factory=list)
    error: str = ""
    mirror_pid: int = 0

    def save(self, directory: Path) -> None:
        """Write ``cursor.json`` into ``directory``."""
        replace_file(directory / FILE_NAME, json.dumps(asdict(self)))

    @classmethod
    def load(cls, directory: Path, target: Target) -> Cursor:
        """Read ``cursor.json``; a missing or damaged one, or one about another store, starts at the beginning."""
        try:
            content = json.loads((directory / FILE_NAME).read_text(encoding="utf-8"))
            cursor = cls(**content)
        except (OSError, ValueError, TypeError):
            return cls(target.tracking_uri)
        return cursor if cursor.tracking_uri == target.tracking_uri else cls(target.tracking_uri)
