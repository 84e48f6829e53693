"""A folder on a file system that cannot rename: an entry's last file commits it."""

from __future__ import annotations

import contextlib
import logging
import re
import shutil
import tempfile
import weakref
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from pyarrow.fs import FileSelector, FileType

from distill.folders.base import Folder

log = logging.getLogger(__name__)

_CHUNK_BYTES = 8 * 2**20


class RemoteFolder(Folder):
    """Entries on any file system of pyarrow, such as S3; each exists once its commit file does.

    The other files are uploaded first, their sizes checked, the commit file last. What a dead writer left has no commit
    file; the next writer removes it, so only one may write at a time.

    Args:
        filesystem: a ``pyarrow.fs.FileSystem``.
        path: of the folder, as the file system writes it, such as ``bucket/run``.
        entries: what the names of entries look like.
        commit_file: name of the file that is written last.
    """

    def __init__(self, filesystem: Any, path: str, *, entries: re.Pattern[str], commit_file: str) -> None:
        super().__init__(entries)
        self.filesystem = filesystem
        self.path = path.rstrip("/")
        self.commit_file = commit_file
        self._forget: Callable[[], Any] = _nothing

    def location(self, name: str = "") -> str:
        return f"{self.filesystem.type_name}:{self._entry(name) if name else self.path}"

    def names(self) -> list[str]:
        return [name for name, committed in self._directories().items() if committed]

    @contextlib.contextmanager
    def staging(self) -> Iterator[Path]:
        for name, committed in self._directories().items():
            if not committed:
                log.info("removing what a killed writer left: %s", self.location(name))
                self.filesystem.delete_dir(self._entry(name))
        with tempfile.TemporaryDirectory() as directory:
            yield Path(directory)

    def publish(self, staged: Path, name: str, files: Sequence[str]) -> None:
        if files[-1] != self.commit_file:
            raise ValueError(f"the last file must be {self.commit_file}, found {files[-1]}")
        self.filesystem.create_dir(self._entry(name), recursive=True)
        for file in files:
            target = f"{self._entry(name)}/{file}"
            with (staged / file).open("rb") as source, self.filesystem.open_output_stream(target) as sink:
                shutil.copyfileobj(source, sink, _CHUNK_BYTES)
            expected, found = (staged / file).stat().st_size, self.filesystem.get_file_info(target).size
            if found != expected:
                raise OSError(f"{self.location(name)}/{file} has {found} bytes after its upload, expected {expected}")

    def fetch(self, name: str) -> Path:
        self._forget()
        directory = Path(tempfile.mkdtemp())
        self._forget = weakref.finalize(self, shutil.rmtree, directory, ignore_errors=True)
        for info in self.filesystem.get_file_info(FileSelector(self._entry(name))):
            if info.type == FileType.File:
                with (
                    self.filesystem.open_input_stream(info.path) as source,
                    (directory / info.base_name).open("wb") as sink,
                ):
                    shutil.copyfileobj(source, sink, _CHUNK_BYTES)
        return directory

    def free_bytes(self) -> int:
        return shutil.disk_usage(tempfile.gettempdir()).free

    def remove(self, name: str) -> None:
        self.filesystem.delete_file(f"{self._entry(name)}/{self.commit_file}")
        self.filesystem.delete_dir(self._entry(name))

    def _entry(self, name: str) -> str:
        return f"{self.path}/{name}"

    def _directories(self) -> dict[str, bool]:
        """Return the name of every entry that was begun, and whether its commit file exists."""
        infos = self.filesystem.get_file_info(FileSelector(self.path, allow_not_found=True))
        directories = [info.base_name for info in infos if info.type == FileType.Directory]
        names = [name for name in directories if self.entries.fullmatch(name)]
        commits = self.filesystem.get_file_info([f"{self._entry(name)}/{self.commit_file}" for name in names])
        return {name: info.type == FileType.File for name, info in zip(names, commits, strict=True)}


def _nothing() -> None:
    """Nothing has been fetched, so there is nothing to forget."""
