"""``distillery sync``: brings to MLflow what it missed."""

from __future__ import annotations

import difflib
import logging
import os
from pathlib import Path

from orchestrator.tracking.file_lock import FileLock
from orchestrator.tracking.mirror_process import MLFLOW_SETTINGS
from orchestrator.tracking.outage_error import OutageError
from orchestrator.tracking.spool import FILE_NAME, count_operations
from orchestrator.tracking.target import Target, spool_directory


def sync(storage: Path, name: str | None = None, *, tracking_uri: str | None = None) -> int:
    """Send everything that MLflow does not have yet, and print what that was; doing it twice adds nothing.

    Args:
        storage: the folder of outputs.
        name: the sweep or run; ``None``: all in ``storage``.
        tracking_uri: another store to send to; default: the one that was recorded.

    Returns:
        The exit status: 0 when MLflow has everything, else 1.

    Raises:
        ValueError: nothing of that name was recorded in ``storage``.
    """
    names = sorted(file.parents[1].name for file in storage.expanduser().glob("*/tracking/target.json"))
    if name is not None and name not in names:
        near = difflib.get_close_matches(name, names, n=1)
        hint = f"; did you mean {near[0]!r}?" if near else f"; found {', '.join(names) or 'nothing'}"
        raise ValueError(f"no experiment {name!r} was recorded in {storage}{hint}")
    for setting, value in MLFLOW_SETTINGS.items():
        os.environ.setdefault(setting, value)
    logging.getLogger("alembic").setLevel(logging.WARNING)
    logging.getLogger("mlflow.store.db").setLevel(logging.WARNING)
    done = [_sync_one(storage, one, tracking_uri) for one in ([name] if name else names)]
    if not done:
        print(f"Nothing was recorded in {storage}.")
    return 0 if all(done) else 1


def _sync_one(storage: Path, name: str, tracking_uri: str | None) -> bool:
    directory = spool_directory(storage, name)
    lock = FileLock(directory / "mirror.lock")
    if not lock.acquire():
        print(f"{name}: its running sweep is sending already")
        return True
    try:
        target = Target.load(directory) if tracking_uri is None else Target.beside(storage, name, tracking_uri)
        return _send(directory, name, target)
    finally:
        lock.release()


def _send(directory: Path, name: str, target: Target) -> bool:
    from orchestrator.tracking.mirror import Mirror

    mirror = Mirror(directory, target)
    try:
        num_sent = mirror.send()
        if _is_over(directory):
            mirror.kill_open_runs()
    except OutageError as error:
        num_waiting = count_operations(directory / FILE_NAME, mirror.cursor.offset)
        print(f"{name}: {target.tracking_uri} does not take it ({error}); {num_waiting} operations wait")
        return False
    refused = f"; it refused {mirror.num_refused}, see {directory / 'refused.jsonl'}" if mirror.num_refused else ""
    print(f"{name}: sent {num_sent} operations to {target.tracking_uri}; MLflow has everything{refused}")
    return True


def _is_over(directory: Path) -> bool:
    """Whether the sweep's process has ended: a run it left open is then not running any more."""
    lock = FileLock(directory / "writer.lock")
    is_over = lock.acquire()
    lock.release()
    return is_over
