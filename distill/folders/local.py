"""A folder on a local disk: entries are renamed into place."""

from __future__ import annotations

import contextlib
import logging
import os
import re
import shutil
import time
import uuid
from collections.abc import Iterator, Sequence
from pathlib import Path

from distill.file_lock import try_lock
from distill.folders.base import Folder

log = logging.getLogger(__name__)


class LocalFolder(Folder):
    """A directory of entries, safe against a kill or a power cut at any moment.

    An entry is written aside, each of its files and then its directory is flushed to the disk (fsync), it is renamed to
    its name, and the directory that holds the name is flushed. A lock (``flock`` on ``.lock``, released by the system
    when its owner dies) tells what a dead writer left from what a living one is writing.

    Args:
        path: the directory; made when first written.
        entries: what the names of entries look like.
        patience_seconds: how long to wait for another writer.
    """

    def __init__(self, path: Path, *, entries: re.Pattern[str], patience_seconds: float = 30.0) -> None:
        super().__init__(entries)
        self.path = path
        self.patience_seconds = patience_seconds

    def location(self, name: str = "") -> str:
        return str(self.path / name)

    def names(self) -> list[str]:
        if not self.path.is_dir():
            return []
        return [entry.name for entry in self.path.iterdir() if self.entries.fullmatch(entry.name) and entry.is_dir()]

    @contextlib.contextmanager
    def staging(self) -> Iterator[Path]:
        _make_directory(self.path)
        with self._lock():
            for leftover in self.path.glob(".tmp-*"):
                log.info("removing what a killed writer left: %s", leftover)
                shutil.rmtree(leftover, ignore_errors=True)
            staged = self.path / f".tmp-{uuid.uuid4().hex}"
            staged.mkdir()
            try:
                yield staged
            finally:
                shutil.rmtree(staged, ignore_errors=True)

    def publish(self, staged: Path, name: str, files: Sequence[str]) -> None:
        for file in files:
            _flush(staged / file)
        _flush(staged)
        staged.rename(self.path / name)
        _flush(self.path)

    def fetch(self, name: str) -> Path:
        return self.path / name

    def free_bytes(self) -> int:
        existing = next(path for path in (self.path, *self.path.absolute().parents) if path.exists())
        return shutil.disk_usage(existing).free

    def remove(self, name: str) -> None:
        doomed = self.path / f".tmp-{uuid.uuid4().hex}"
        (self.path / name).rename(doomed)
        shutil.rmtree(doomed, ignore_errors=True)

    @contextlib.contextmanager
    def _lock(self) -> Iterator[None]:
        with (self.path / ".lock").open("w") as file:
            deadline = time.monotonic() + self.patience_seconds
            while not try_lock(file.fileno()):
                if time.monotonic() > deadline:
                    raise TimeoutError(
                        f"{self.path} is being written by another process for more than {self.patience_seconds:g} s: "
                        "give each run a folder of its own"
                    )
                time.sleep(0.05)
            yield


def _make_directory(path: Path) -> None:
    """Make a directory and those above it, durably: each new name is flushed with the directory that holds it."""
    missing = [parent for parent in (path, *path.parents) if not parent.exists()]
    for directory in reversed(missing):
        directory.mkdir(exist_ok=True)
        _flush(directory.parent)


def _flush(path: Path) -> None:
    """Wait until a file's contents, or a directory's names, are on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
