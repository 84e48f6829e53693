"""The contract of a folder whose entries appear whole or not at all."""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Sequence
from contextlib import AbstractContextManager
from pathlib import Path


class Folder(ABC):
    """Named entries, each a few files; written once, never changed, and read only when all of it is there.

    Args:
        entries: what the names of entries look like; whatever else lies in the folder is left alone.
    """

    def __init__(self, entries: re.Pattern[str]) -> None:
        self.entries = entries

    @abstractmethod
    def location(self, name: str = "") -> str:
        """Return what messages call an entry, or the folder itself."""

    @abstractmethod
    def names(self) -> list[str]:
        """Return the names of all published entries; none where the folder does not exist."""

    @abstractmethod
    def staging(self) -> AbstractContextManager[Path]:
        """Give an empty local directory to write an entry into; what is left in it at the end is removed.

        One writer at a time: what writers left that died is removed first.

        Raises:
            TimeoutError: another process is writing, and does not finish.
        """

    @abstractmethod
    def publish(self, staged: Path, name: str, files: Sequence[str]) -> None:
        """Make a staged directory an entry, durably.

        Args:
            staged: the directory that :meth:`staging` gave.
            name: of an entry that does not exist yet.
            files: its files; the entry exists from the moment that the last one is in place.
        """

    @abstractmethod
    def fetch(self, name: str) -> Path:
        """Return a local directory with an entry's files, valid until another entry is fetched."""

    @abstractmethod
    def free_bytes(self) -> int:
        """Return how much can be written to the disk that entries are staged on."""

    @abstractmethod
    def remove(self, name: str) -> None:
        """Remove an entry; a reader sees all of it or nothing."""
