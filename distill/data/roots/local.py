"""A root on this machine."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import IO

from distill.data.roots.base import Root
from distill.data.roots.listed_file import ListedFile


class LocalRoot(Root):
    """A folder of this machine: its files are used where they lie, and nothing is written.

    Args:
        path: the folder.

    Raises:
        ValueError: there is no such folder.
    """

    def __init__(self, path: Path) -> None:
        if not path.is_dir():
            raise ValueError(f"root must be an existing folder, found {path}")
        self.path = path

    def location(self, name: str = "") -> str:
        return str(self.path / name)

    @property
    def downloads_to(self) -> Path:
        return self.path

    def find(self, *names: str) -> ListedFile | None:
        name = next((name for name in names if (self.path / name).is_file()), None)
        return None if name is None else _listed(name, self.path / name)

    def folders(self, name: str = "") -> list[str]:
        if not (self.path / name).is_dir():
            return []
        with os.scandir(self.path / name) as entries:
            return sorted(entry.name for entry in entries if entry.is_dir())

    def files(self, name: str = "") -> list[ListedFile]:
        found: list[ListedFile] = []
        for directory, _, files in os.walk(self.path / name, followlinks=True):
            folder = Path(directory).relative_to(self.path).as_posix()
            prefix = "" if folder == "." else f"{folder}/"
            found += [_listed(f"{prefix}{file}", Path(directory, file)) for file in files]
        return found

    def open(self, name: str) -> IO[bytes]:
        return (self.path / name).open("rb")

    def fetch(self, files: Sequence[ListedFile]) -> Path:
        return self.path


def _listed(name: str, path: Path) -> ListedFile:
    try:
        state = path.stat()
    except OSError:
        state = path.lstat()  # a link that leads nowhere: whoever reads it says so
    return ListedFile(name, state.st_size, state.st_mtime_ns)
