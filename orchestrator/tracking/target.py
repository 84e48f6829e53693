"""Where a sweep's MLflow mirror lives."""

from __future__ import annotations

import json
import os
import re
from dataclasses import asdict, dataclass
from pathlib import Path
from urllib.parse import urlsplit

_SQLITE = re.compile(r"^sqlite:///(?P<path>.+)$")
_DATABASES = ("postgresql", "mysql", "mssql")


@dataclass(frozen=True)
class Target:
    """An MLflow store and the experiment of it that one sweep or run writes to.

    Args:
        tracking_uri: an ``http(s)`` server, or a database with an absolute path.
        experiment_name: name of the MLflow experiment.
        artifact_location: where artifacts go; ``None`` leaves it to the server.
    """

    tracking_uri: str
    experiment_name: str
    artifact_location: str | None = None

    @classmethod
    def beside(cls, storage: Path, experiment_name: str, tracking_uri: str | None = None) -> Target:
        """Return the target of ``experiment_name``, by default a SQLite file in ``storage``.

        Ray workers change their working directory, so every path in a target is absolute.

        Args:
            storage: the folder of outputs.
            experiment_name: name of the MLflow experiment.
            tracking_uri: ``run.tracking_uri`` of the experiment file.

        Raises:
            ValueError: the URI is of a kind that MLflow no longer writes to, or holds a password.
        """
        storage = storage.expanduser().absolute()
        if tracking_uri is None:
            tracking_uri = f"sqlite:///{storage / 'mlflow.db'}"
        artifacts = (storage / "mlartifacts" / experiment_name).as_uri()
        sqlite = _SQLITE.match(tracking_uri)
        if sqlite:
            path = Path(sqlite["path"]).expanduser().absolute()
            return cls(f"sqlite:///{path}", experiment_name, artifacts)
        parts = urlsplit(tracking_uri)
        if parts.password:
            raise ValueError(
                "run.tracking_uri: must not hold a password, since it is written beside the outputs; give it in "
                "MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD (a server) or PGPASSWORD and the like "
                f"(a database) instead; found a password for {parts.hostname}"
            )
        if parts.scheme in ("http", "https"):
            return cls(tracking_uri.rstrip("/"), experiment_name)
        if parts.scheme.partition("+")[0] in _DATABASES:
            return cls(tracking_uri, experiment_name, artifacts)
        raise ValueError(
            "run.tracking_uri: must be http://, https://, sqlite:/// or another database (MLflow 3 refuses folders); "
            f"found {tracking_uri!r}"
        )

    @property
    def is_server(self) -> bool:
        """Whether the store is a server that somebody else runs."""
        return self.tracking_uri.startswith(("http://", "https://"))

    def save(self, directory: Path) -> None:
        """Write ``target.json`` into ``directory``."""
        replace_file(directory / "target.json", json.dumps(asdict(self), indent=1) + "\n")

    @classmethod
    def load(cls, directory: Path) -> Target:
        """Read ``target.json`` from ``directory``."""
        return cls(**json.loads((directory / "target.json").read_text(encoding="utf-8")))


def spool_directory(storage: Path, name: str) -> Path:
    """Return the folder that holds what the sweep or run ``name`` wants MLflow to know."""
    return storage.expanduser().absolute() / name / "tracking"


def replace_file(path: Path, content: str) -> None:
    """Write a small file so that a reader sees the old or the new content, never half of one."""
    aside = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    aside.write_text(content, encoding="utf-8")
    aside.replace(path)
