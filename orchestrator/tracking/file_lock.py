"""A lock that ends with its process."""

from __future__ import annotations

import os
from pathlib import Path

from distill.file_lock import try_lock


class FileLock:
    """An advisory lock on a file, freed by the operating system when its holder ends in whatever way.

    A file system without locks (some network mounts) grants every request: the lock guards against accidents only.

    Args:
        path: the lock's file; made if missing, never removed.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file: int | None = None

    def acquire(self) -> bool:
        """Take the lock without waiting; return whether it is ours."""
        # O_CLOEXEC is Python's default: a child process must not keep the lock alive.
        file = os.open(self._path, os.O_RDWR | os.O_CREAT, 0o644)
        if not try_lock(file):
            os.close(file)
            return False
        self._file = file
        return True

    def release(self) -> None:
        """Give the lock back; without effect when it isn't held."""
        if self._file is not None:
            os.close(self._file)
            self._file = None
