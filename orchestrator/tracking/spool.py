"""The journal of everything that should reach MLflow: appended by the training side, read by the mirror."""

from __future__ import annotations

import json
import logging
import os
import threading
from collections.abc import Iterator
from pathlib import Path

from orchestrator.tracking.operation import Operation

logger = logging.getLogger(__name__)

FILE_NAME = "operations.jsonl"
_CLOSED = -1  # no descriptor: writing to it fails, where a stale number might be somebody else's file by then


class Spool:
    """Appends operations to ``operations.jsonl``; each is handed to the operating system before the call returns.

    A process killed at any point leaves at most one torn last line, which the next one ends and the reader passes over.
    A disk that is full or gone costs the operation, a warning, and nothing else: training goes on.

    Args:
        directory: the spool's folder; made if missing.
    """

    def __init__(self, directory: Path) -> None:
        self.path = directory / FILE_NAME
        self.num_lost = 0
        self._lock = threading.Lock()
        directory.mkdir(parents=True, exist_ok=True)
        self._file = os.open(self.path, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o644)
        self._torn = _ends_torn(self._file)

    def append(self, operation: Operation) -> None:
        """Add one operation."""
        line = (json.dumps(operation, allow_nan=False, separators=(",", ":")) + "\n").encode()
        with self._lock:
            if self._torn:
                line = b"\n" + line
            self._torn = True
            try:
                while line:
                    line = line[os.write(self._file, line) :]
            except OSError as error:
                self.num_lost += 1
                if self.num_lost == 1:
                    logger.warning("cannot write %s: %s; MLflow will lack what is reported now", self.path, error)
            else:
                self._torn = False

    def close(self) -> None:
        """Close the file; what is appended afterwards is lost with a warning."""
        with self._lock:
            if self._file != _CLOSED:
                os.close(self._file)
            self._file = _CLOSED


def read_operations(path: Path, offset: int = 0) -> Iterator[tuple[Operation, int]]:
    """Yield the operations from byte ``offset`` on, each with the offset of what follows it.

    A last line without its end is left for later; a damaged line in between is passed over with a warning.
    """
    if not path.exists():
        return
    with path.open("rb") as file:
        file.seek(offset)
        for line in file:
            if not line.endswith(b"\n"):
                return
            offset += len(line)
            if not line.strip():
                continue
            try:
                operation = json.loads(line)
            except ValueError:
                logger.warning("%s: passed over a damaged line that ends at byte %d", path, offset)
                continue
            yield operation, offset


def count_operations(path: Path, offset: int = 0) -> int:
    """Return how many operations stand from byte ``offset`` on."""
    return sum(1 for _ in read_operations(path, offset))


def _ends_torn(file: int) -> bool:
    size = os.fstat(file).st_size
    return size > 0 and os.pread(file, 1, size - 1) != b"\n"
