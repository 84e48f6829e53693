"""An empty MLflow store for tests: making one takes seconds, copying it none."""

from __future__ import annotations

import atexit
import functools
import shutil
import tempfile
from pathlib import Path


@functools.cache
def _template() -> Path:
    from mlflow.tracking import MlflowClient

    folder = Path(tempfile.mkdtemp(prefix="empty-store-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    file = folder / "mlflow.db"
    MlflowClient(f"sqlite:///{file}").search_experiments()
    return file


def copy_empty_store(destination: Path) -> None:
    """Write a SQLite file that holds MLflow's schema and nothing else."""
    shutil.copyfile(_template(), destination)
