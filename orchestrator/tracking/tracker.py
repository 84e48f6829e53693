"""The training side of tracking: records what MLflow should know and never waits for it."""

from __future__ import annotations

import logging
import math
import os
import re
import shlex
import shutil
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self

from orchestrator.tracking.cursor import Cursor
from orchestrator.tracking.file_lock import FileLock
from orchestrator.tracking.mirror_process import MirrorProcess
from orchestrator.tracking.operation import MAX_PARAM_LENGTH, MAX_RUN_TAG_LENGTH, Operation, cut, mlflow_key
from orchestrator.tracking.recorded import Recorded
from orchestrator.tracking.spool import Spool, count_operations, read_operations
from orchestrator.tracking.target import Target

logger = logging.getLogger(__name__)

Status = Literal["FINISHED", "FAILED", "KILLED"]
_SERVER_SECONDS = 5.0
_FILE_SECONDS = 60.0
_KEY = re.compile(r"^[\w.\-]{1,100}$", flags=re.ASCII)


class Tracker:
    """Records runs, metrics and files for MLflow; a separate process brings them there.

    Each call appends a line to the spool and returns (about 10 microseconds). The mirror is a process and not a thread,
    because a thread that writes to MLflow holds Python's lock against the training: measured on a small network, a
    twelfth of the speed is left while it works, against all of it beside a process. A store that is down, answers 500
    or never answers costs nothing but a later ``distillery sync``.

    Runs are named by our own keys; MLflow's run ids are looked up by the tag ``distillery.run``, so that recording or
    sending anything twice changes nothing.

    Args:
        directory: the spool's folder, of one sweep or run.
        target: the store and experiment to mirror into.
        mirror: whether to start the mirror process; without it everything waits for ``distillery sync``.

    Raises:
        ValueError: another process is recording to this spool.
    """

    def __init__(self, directory: Path, *, target: Target, mirror: bool = True) -> None:
        self.directory = directory.expanduser().absolute()
        self.target = target
        self.directory.mkdir(parents=True, exist_ok=True)
        self._lock = FileLock(self.directory / "writer.lock")
        if not self._lock.acquire():
            raise ValueError(f"{self.directory}: only one process may record a sweep; another one is doing so")
        target.save(self.directory)
        self._spool = Spool(self.directory)
        self._recorded = Recorded()
        for operation, _ in read_operations(self._spool.path):
            self._recorded.observe(operation)
        self._mirror = self._start_mirror() if mirror else None

    def start_run(
        self,
        key: str,
        name: str,
        *,
        parent: str | None = None,
        tags: Mapping[str, str] | None = None,
        params: Mapping[str, str] | None = None,
        start_time_ms: int | None = None,
    ) -> None:
        """Open the run ``key``, or open it again when it was started earlier.

        Args:
            key: our own identifier, unique in the experiment.
            name: what people read.
            parent: key of the sweep that it belongs to (MLflow draws one level).
            tags: tags, values cut at 8000 characters.
            params: flat parameters, values cut at 6000 characters. MLflow never changes a parameter: the first value
                stays.
            start_time_ms: when it started, in milliseconds since 1970; default: now.

        Raises:
            ValueError: a key that is no word, or a parent that was not started.
        """
        if not _KEY.match(key):
            raise ValueError(f"run key: must be letters, digits, '_', '-' or '.', at most 100; found {key!r}")
        if parent is not None:
            self._require(parent)
        self._record(
            "start_run",
            key,
            time_ms=start_time_ms,
            name=name,
            parent=parent,
            tags=_tags(tags or {}),
            params={mlflow_key(name): cut(value, MAX_PARAM_LENGTH) for name, value in (params or {}).items()},
        )

    def metrics(self, key: str, values: Mapping[str, float], *, step: int, timestamp_ms: int | None = None) -> None:
        """Record a point of some curves; a step that was recorded before is left as it is.

        A value that is not finite becomes the tag ``nonfinite.<name>``: MLflow turns infinity into 1.797e308.
        """
        finite, odd = _split_finite(values)
        new = self._recorded.new_metrics(key, finite, step)
        if new:
            self._record("metrics", key, time_ms=timestamp_ms, values=new, step=step)
        if odd:
            self.tags(key, {f"nonfinite.{name}": f"{value} at step {step}" for name, value in odd.items()})

    def results(self, key: str, values: Mapping[str, float]) -> None:
        """Record what came out: single values at step 0, of which the latest counts."""
        finite, odd = _split_finite(values)
        new = self._recorded.new_results(key, finite)
        if new:
            self._record("results", key, values=new)
        if odd:
            self.tags(key, {f"nonfinite.{name}": str(value) for name, value in odd.items()})

    def tags(self, key: str, tags: Mapping[str, str]) -> None:
        """Set tags of a run."""
        self._record("tags", key, tags=_tags(tags))

    def experiment_tags(self, tags: Mapping[str, str]) -> None:
        """Set tags of the experiment."""
        self._append("experiment_tags", tags=dict(tags))

    def text(self, key: str, content: str, artifact_file: str) -> None:
        """Store ``content`` as the run's artifact ``artifact_file``."""
        self._record("text", key, content=content, artifact_file=artifact_file)

    def artifact(self, key: str, local_file: Path, artifact_path: str | None = None) -> None:
        """Store a file as an artifact of the run, in its folder ``artifact_path``.

        A file beside the spool (in the outputs of the sweep) is remembered by its place; any other one is copied.
        """
        self._record("artifact", key, file=self._keep(local_file), artifact_path=artifact_path)

    def image(self, key: str, png_file: Path, image_key: str, *, step: int = 0) -> None:
        """Show a picture among the run's charts, as ``image_key`` (such as ``compare/path_effect``)."""
        self._record("image", key, file=self._keep(png_file), image_key=image_key, step=step)

    def table(self, key: str, columns: Sequence[str], rows: Sequence[Sequence[Any]], artifact_file: str) -> None:
        """Store a table that MLflow shows as one; ``artifact_file`` ends in ``.json``."""
        self._record("table", key, columns=list(columns), rows=[list(row) for row in rows], artifact_file=artifact_file)

    def dataset(self, key: str, name: str, digest: str, context: str) -> None:
        """Name the data of a run: its fingerprint, and what it was used for (``train``, ``validation``)."""
        self._record("dataset", key, name=name[:500], digest=digest[:36], context=context)

    def model(
        self, key: str, directory: Path, *, name: str = "student", metrics: Mapping[str, float] | None = None
    ) -> None:
        """Store a folder written by :func:`save_student_model` as the model ``name`` of the run.

        Args:
            key: the run.
            directory: the model's folder, within the outputs of the sweep.
            name: what MLflow's list of models calls it.
            metrics: what the model reached; shown in that list.
        """
        finite, _ = _split_finite(metrics or {})
        self._record("model", key, file=self._keep(directory), name=name, metrics=finite)

    def end_run(self, key: str, status: Status, *, end_time_ms: int | None = None) -> None:
        """Close a run."""
        self._record("end_run", key, time_ms=end_time_ms, status=status)

    def knows(self, key: str) -> bool:
        """Whether the run ``key`` was started, now or in an earlier session."""
        return key in self._recorded.runs

    def run_id(self, key: str) -> str | None:
        """Return MLflow's id of a run, or ``None`` while MLflow does not know it yet."""
        return Cursor.load(self.directory, self.target).runs.get(key)

    def close(self, timeout_seconds: float | None = None) -> int:
        """Wait for the mirror while it makes progress, then let go; closing twice is allowed.

        Args:
            timeout_seconds: how long to wait without progress; default: 5 seconds for a server, which may never
                answer, and 60 for a file, which is slow only where the machine is busy.

        Returns:
            The number of operations that MLflow does not have yet; a warning says how to send them.
        """
        if self._mirror is not None:
            default = _SERVER_SECONDS if self.target.is_server else _FILE_SECONDS
            self._mirror.finish(default if timeout_seconds is None else timeout_seconds)
            self._mirror = None
        self._spool.close()
        self._lock.release()
        cursor = Cursor.load(self.directory, self.target)
        num_waiting = count_operations(self._spool.path, cursor.offset)
        if num_waiting:
            logger.warning(
                "MLflow (%s) lacks %d operations%s; send them with: distillery sync %s",
                self.target.tracking_uri,
                num_waiting,
                f" ({cursor.error})" if cursor.error else "",
                shlex.quote(self.directory.parent.name),
            )
        return num_waiting

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def _start_mirror(self) -> MirrorProcess | None:
        try:
            return MirrorProcess(self.directory, self.target)
        except OSError as error:
            logger.warning("cannot start the process that writes to MLflow: %s", error)
            return None

    def _record(self, op: str, key: str, *, time_ms: int | None = None, **content: Any) -> None:
        if op != "start_run":
            self._require(key)
        self._append(op, time_ms=time_ms, run=key, **content)

    def _append(self, op: str, *, time_ms: int | None = None, **content: Any) -> None:
        operation: Operation = {"op": op, "time": int(time.time() * 1000) if time_ms is None else time_ms, **content}
        self._spool.append(operation)
        self._recorded.observe(operation)

    def _require(self, key: str) -> None:
        if not self.knows(key):
            raise ValueError(f"run key: must name a run that was started; found {key!r}")

    def _keep(self, file: Path) -> str:
        """Return where the mirror finds ``file`` later, relative to the spool's folder."""
        file = file.absolute()
        outputs = self.directory.parent
        if outputs in file.parents:
            return os.path.relpath(file, self.directory)
        copy = self.directory / "files" / f"{time.time_ns():x}" / file.name
        try:
            copy.parent.mkdir(parents=True)
            if file.is_dir():
                shutil.copytree(file, copy)
            else:
                shutil.copy2(file, copy)
        except OSError as error:
            logger.warning("cannot keep %s for MLflow: %s", file, error)
        return os.path.relpath(copy, self.directory)


def _tags(tags: Mapping[str, str]) -> dict[str, str]:
    return {mlflow_key(name): cut(str(value), MAX_RUN_TAG_LENGTH) for name, value in tags.items()}


def _split_finite(values: Mapping[str, float]) -> tuple[dict[str, float], dict[str, float]]:
    named = {mlflow_key(name): float(value) for name, value in values.items()}
    finite = {name: value for name, value in named.items() if math.isfinite(value)}
    return finite, {name: value for name, value in named.items() if not math.isfinite(value)}
