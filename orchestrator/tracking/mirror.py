"""Brings a spool to MLflow: in order, in batches, and as often as needed without doing anything twice."""

from __future__ import annotations

import json
import logging
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from mlflow.exceptions import MlflowException

from orchestrator.tracking.cursor import Cursor
from orchestrator.tracking.operation import MAX_EXPERIMENT_TAG_LENGTH, MAX_METRICS_PER_BATCH, Operation, cut
from orchestrator.tracking.outage_error import OutageError
from orchestrator.tracking.refusal_error import RefusalError
from orchestrator.tracking.spool import FILE_NAME, read_operations
from orchestrator.tracking.store import Store
from orchestrator.tracking.target import Target

logger = logging.getLogger(__name__)

# What MLflow answers when the content of a request is wrong. Everything else (no answer, 500, no permission, a locked
# or full database) may pass, so that nothing is given up for it.
_REFUSALS = {"INVALID_PARAMETER_VALUE", "RESOURCE_DOES_NOT_EXIST", "INVALID_STATE", "MALFORMED_REQUEST"}


class Mirror:
    """Sends the operations of one spool; ``cursor.json`` says how far it has come.

    A crash between sending and writing the cursor repeats operations: runs are found by their tag before they are
    created, points carry the times of the spool, and artifacts overwrite themselves. An operation that MLflow refuses
    for its content goes to ``refused.jsonl`` with the reason.

    Args:
        directory: the spool's folder.
        target: where to; default: what the folder's ``target.json`` says.
    """

    def __init__(self, directory: Path, target: Target | None = None) -> None:
        self._directory = directory
        self.target = target or Target.load(directory)
        self.cursor = Cursor.load(directory, self.target)
        self.cursor.mirror_pid = os.getpid()
        self._save()
        self.num_refused = 0
        self._store: Store | None = None
        self._points: dict[str, list[tuple[str, float, int, int]]] = {}
        self._handlers: dict[str, Callable[[Store, Operation], None]] = {
            "start_run": self._start_run,
            "metrics": self._metrics,
            "results": self._metrics,
            "tags": lambda store, o: store.set_tags(self._run_id(store, o), o["tags"]),
            "experiment_tags": lambda store, o: store.set_experiment_tags(
                {name: cut(value, MAX_EXPERIMENT_TAG_LENGTH) for name, value in o["tags"].items()}
            ),
            "text": lambda store, o: store.add_text(self._run_id(store, o), o["content"], o["artifact_file"]),
            "artifact": lambda store, o: store.add_artifact(self._run_id(store, o), self._file(o), o["artifact_path"]),
            "image": lambda store, o: store.add_image(
                self._run_id(store, o), self._file(o), o["image_key"], step=o["step"]
            ),
            "table": lambda store, o: store.add_table(
                self._run_id(store, o), o["columns"], o["rows"], o["artifact_file"]
            ),
            "dataset": lambda store, o: store.add_dataset(self._run_id(store, o), o["name"], o["digest"], o["context"]),
            "model": lambda store, o: store.add_model(
                self._run_id(store, o), self._file(o), o["name"], metrics=o["metrics"], time_ms=o["time"]
            ),
            "end_run": self._end_run,
        }

    def send(self) -> int:
        """Send what stands in the spool; return how many operations that were.

        Raises:
            OutageError: MLflow did not take it; what was taken before is noted.
        """
        try:
            store = self._connect()
            before = self.cursor.num_sent
            num_points = 0
            num_operations = 0
            offset = self.cursor.offset
            for operation, end in read_operations(self._directory / FILE_NAME, offset):
                if operation["op"] not in ("metrics", "results"):
                    self._flush(store)
                    num_points = 0
                with self._judged(operation):
                    self._handlers.get(operation["op"], _unknown)(store, operation)
                num_operations += 1
                num_points += len(operation.get("values", ()))
                offset = end
                if not self._points or num_points >= MAX_METRICS_PER_BATCH:
                    self._flush(store)
                    num_points = 0
                    self._advance(offset, num_operations)
                    num_operations = 0
            self._flush(store)
            if offset != self.cursor.offset or self.cursor.error:
                self._advance(offset, num_operations)
        except OutageError as error:
            self._points.clear()
            self.cursor.error = str(error)
            self._save()
            raise
        return self.cursor.num_sent - before

    def kill_open_runs(self) -> int:
        """Say of runs that never ended, because their process did, that they were killed; return how many.

        Raises:
            OutageError: MLflow did not take it.
        """
        store = self._connect()
        for key in list(self.cursor.open_runs):
            with self._judged({"op": "end_run", "run": key}):
                store.end_run(self.cursor.runs[key], "KILLED")
        num_killed = len(self.cursor.open_runs)
        self.cursor.open_runs.clear()
        self._save()
        return num_killed

    def _connect(self) -> Store:
        if self._store is not None:
            return self._store
        with _outages():
            store = Store(self.target)
            experiment_id = store.find_experiment()
            if experiment_id is None:
                experiment_id = store.create_experiment()
        if experiment_id != self.cursor.experiment_id:
            # Never sent there, or the store was emptied since: everything from the beginning.
            self.cursor = Cursor(self.target.tracking_uri, experiment_id, mirror_pid=os.getpid())
            self._save()
        self._store = store
        return store

    def _advance(self, offset: int, num_operations: int) -> None:
        self.cursor.offset = offset
        self.cursor.num_sent += num_operations
        self.cursor.error = ""
        self._save()

    def _save(self) -> None:
        try:
            self.cursor.save(self._directory)
        except OSError as error:  # without it, some operations are repeated
            logger.warning("cannot write how far MLflow is: %s", error)

    @contextmanager
    def _judged(self, operation: Operation) -> Iterator[None]:
        """Set aside what MLflow refuses for its content; turn every other failure into an outage."""
        try:
            yield
        except MlflowException as error:
            if error.error_code not in _REFUSALS:
                raise OutageError(_first_line(error)) from error
            self._refuse(operation, error)
        except RefusalError as error:
            self._refuse(operation, error)
        except Exception as error:
            raise OutageError(_first_line(error)) from error

    def _refuse(self, operation: Operation, error: Exception) -> None:
        reason = _first_line(error)
        logger.warning("MLflow refused %s of run %s: %s", operation["op"], operation.get("run", "-"), reason)
        self.num_refused += 1
        with (self._directory / "refused.jsonl").open("a", encoding="utf-8") as file:
            file.write(json.dumps({"reason": reason, "refused_at": time.time(), "operation": operation}) + "\n")

    def _run_id(self, store: Store, operation: Operation) -> str:
        key = operation["run"]
        if key not in self.cursor.runs:
            run_id = store.find_run(key)
            if run_id is None:
                raise RefusalError(f"run {key} was never started")
            self.cursor.runs[key] = run_id
        return self.cursor.runs[key]

    def _start_run(self, store: Store, operation: Operation) -> None:
        key = operation["run"]
        run_id = self.cursor.runs.get(key) or store.find_run(key)
        if run_id is None:
            parent = operation["parent"]
            parent_id = None if parent is None else self._run_id(store, {"run": parent})
            # Giving up on a run's start would give up on all that follows of it.
            with _outages():
                run_id = store.create_run(key, operation["name"], parent_id=parent_id, start_time_ms=operation["time"])
        else:
            store.reopen_run(run_id, operation["name"])
        self.cursor.runs[key] = run_id
        if key not in self.cursor.open_runs:
            self.cursor.open_runs.append(key)
        store.set_tags(run_id, operation["tags"])
        for name, value in store.add_params(run_id, operation["params"]).items():
            logger.warning("run %s: parameter %s keeps its first value, not %r", key, name, value)

    def _metrics(self, store: Store, operation: Operation) -> None:
        points = self._points.setdefault(self._run_id(store, operation), [])
        step = operation.get("step", 0)
        points.extend((name, value, operation["time"], step) for name, value in operation["values"].items())

    def _end_run(self, store: Store, operation: Operation) -> None:
        store.end_run(self._run_id(store, operation), operation["status"], operation["time"])
        if operation["run"] in self.cursor.open_runs:
            self.cursor.open_runs.remove(operation["run"])

    def _flush(self, store: Store) -> None:
        for run_id, points in self._points.items():
            with self._judged({"op": "metrics", "run": run_id, "points": points}):
                store.add_metrics(run_id, points)
        self._points.clear()

    def _file(self, operation: Operation) -> Path:
        file = self._directory / str(operation["file"])
        if not file.exists():
            raise RefusalError(f"{file} is gone")
        return file


@contextmanager
def _outages() -> Iterator[None]:
    """Turn every failure to reach the experiment into an outage: nothing of the spool is to blame for it."""
    try:
        yield
    except Exception as error:
        raise OutageError(_first_line(error)) from error


def _unknown(store: Store, operation: Operation) -> None:
    raise RefusalError(f"no operation is called {operation['op']!r}")


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return cut(lines[0] if lines else type(error).__name__, 300)
