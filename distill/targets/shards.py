"""Where shards lie: immutable files named by what they hold, which several may write at once."""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
import shutil
import tempfile
import time
import uuid
from abc import ABC, abstractmethod
from collections.abc import Collection
from pathlib import Path
from typing import Any

from pyarrow.fs import FileSelector, FileType

from distill.targets.shard import ShardError

log = logging.getLogger(__name__)

SUFFIX = ".arrow"
_USED = ".used"
_ABANDONED_SECONDS = 24 * 3600
"""Age from which a file that is still being written belongs to a dead writer."""


class Shards(ABC):
    """Folders of files that are never changed. A file's name ends with the SHA-256 of its content.

    So a file commits itself by its name, whoever wrote it: torn or damaged ones are found by reading them, and two
    writers of the same answers write the same file.
    """

    def put(self, folder: str, stem: str, content: bytes) -> None:
        """Write a shard; it is seen under its name whole or not at all.

        Raises:
            OSError: the disk is full, or the file system cannot be reached.
        """
        self._put(folder, f"{stem}.{hashlib.sha256(content).hexdigest()}{SUFFIX}", content)

    def get(self, folder: str, name: str) -> Path:
        """Return a shard as a file of this machine, its content checked against its name.

        Raises:
            ShardError: it is damaged or gone.
        """
        try:
            path = self._get(folder, name)
            with path.open("rb") as file:
                found = hashlib.file_digest(file, "sha256").hexdigest()
        except OSError as error:
            raise ShardError(f"{self.location(folder)}/{name} cannot be read ({error})") from error
        if found != name.removesuffix(SUFFIX).rpartition(".")[2]:
            raise ShardError(f"{self.location(folder)}/{name} is damaged: its SHA-256 is {found}")
        return path

    def make_room(self, needed_bytes: int, budget_bytes: int, keep: Collection[str] = ()) -> list[str]:
        """Remove the folders that were used least recently until ``needed_bytes`` more fit the budget.

        Args:
            needed_bytes: what is about to be written.
            budget_bytes: what all folders, of every teacher, may take together.
            keep: folders that stay in any case.

        Returns:
            The folders that were removed.
        """
        folders = self.folders()
        free_bytes = budget_bytes - needed_bytes - sum(size for size, _ in folders.values())
        removed = []
        for folder, (size_bytes, _) in sorted(folders.items(), key=lambda item: item[1][1]):
            if free_bytes >= 0:
                break
            if folder not in keep:
                self.discard(folder)
                removed.append(folder)
                free_bytes += size_bytes
        return removed

    @abstractmethod
    def location(self, folder: str = "") -> str:
        """Return what messages call a folder."""

    @abstractmethod
    def names(self, folder: str) -> list[str]:
        """Return the names of the shards in a folder, sorted; none where it does not exist."""

    @abstractmethod
    def folders(self) -> dict[str, tuple[int, float]]:
        """Return bytes and time of last use (seconds since 1970) of every folder of shards."""

    @abstractmethod
    def use(self, folder: str) -> None:
        """Note that a folder is used now."""

    @abstractmethod
    def discard(self, folder: str, name: str = "") -> None:
        """Remove a shard, or a whole folder; who has it open keeps reading it."""

    @abstractmethod
    def _put(self, folder: str, name: str, content: bytes) -> None: ...

    @abstractmethod
    def _get(self, folder: str, name: str) -> Path: ...


class LocalShards(Shards):
    """Shards on a disk of this machine, written aside, flushed and renamed.

    Args:
        root: the folder of all; made when first written.
    """

    def __init__(self, root: Path) -> None:
        self.root = root

    def location(self, folder: str = "") -> str:
        return str(self.root / folder)

    def names(self, folder: str) -> list[str]:
        with contextlib.suppress(FileNotFoundError):
            return sorted(name for name in os.listdir(self.root / folder) if _is_shard(name))  # noqa: PTH208, twice as fast
        return []

    def folders(self) -> dict[str, tuple[int, float]]:
        found = {}
        for mark in self.root.glob(f"*/*/{_USED}"):
            with contextlib.suppress(OSError):  # another process may be removing it
                size_bytes = sum(file.stat().st_size for file in mark.parent.iterdir())
                found[str(mark.parent.relative_to(self.root))] = (size_bytes, mark.stat().st_mtime)
        return found

    def use(self, folder: str) -> None:
        with contextlib.suppress(OSError):  # a store that can only be read
            (self.root / folder).mkdir(parents=True, exist_ok=True)
            (self.root / folder / _USED).touch()

    def discard(self, folder: str, name: str = "") -> None:
        if name:
            (self.root / folder / name).unlink(missing_ok=True)
        else:
            shutil.rmtree(self.root / folder, ignore_errors=True)

    def _get(self, folder: str, name: str) -> Path:
        return self.root / folder / name

    def _put(self, folder: str, name: str, content: bytes) -> None:
        directory = self.root / folder
        directory.mkdir(parents=True, exist_ok=True)
        _sweep(directory)
        aside = directory / f".{uuid.uuid4().hex}.part"
        try:
            with aside.open("wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            aside.rename(directory / name)
        finally:
            aside.unlink(missing_ok=True)
        descriptor = os.open(directory, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


class RemoteShards(Shards):
    """Shards on any file system of pyarrow, such as S3, read through a folder of this machine.

    A file that was torn on its way does not match its name, so it counts as damaged and is written again.

    Args:
        filesystem: a ``pyarrow.fs.FileSystem``.
        root: the folder of all, as the file system writes it.
        cache: folder of this machine for the shards that were read; ``None``: one that is removed at exit.
    """

    def __init__(self, filesystem: Any, root: str, cache: Path | None = None) -> None:
        self.filesystem = filesystem
        self.root = root.rstrip("/")
        self._temporary = None if cache is not None else tempfile.TemporaryDirectory(prefix="distillery-targets-")
        self._cache = LocalShards(cache or Path(self._temporary.name if self._temporary else ""))

    def location(self, folder: str = "") -> str:
        return f"{self.filesystem.type_name}:{self._at(folder)}"

    def names(self, folder: str) -> list[str]:
        infos = self.filesystem.get_file_info(FileSelector(self._at(folder), allow_not_found=True))
        return sorted(info.base_name for info in infos if _is_shard(info.base_name))

    def folders(self) -> dict[str, tuple[int, float]]:
        selector = FileSelector(self.root, allow_not_found=True, recursive=True)
        found: dict[str, tuple[int, float]] = {}
        for info in self.filesystem.get_file_info(selector):
            if info.type == FileType.File:
                folder = info.path.removeprefix(f"{self.root}/").rpartition("/")[0]
                size_bytes, used = found.get(folder, (0, 0.0))
                changed = info.mtime.timestamp() if info.mtime is not None else 0.0
                found[folder] = (size_bytes + (info.size or 0), max(used, changed))
        return found

    def use(self, folder: str) -> None:
        self._write(folder, _USED, b"used")

    def discard(self, folder: str, name: str = "") -> None:
        with contextlib.suppress(FileNotFoundError):
            if name:
                self.filesystem.delete_file(f"{self._at(folder)}/{name}")
            else:
                self.filesystem.delete_dir(self._at(folder))
        self._cache.discard(folder, name)

    def _get(self, folder: str, name: str) -> Path:
        cached = self._cache.root / folder / name
        if not cached.exists():
            with self.filesystem.open_input_stream(f"{self._at(folder)}/{name}") as stream:
                self._cache._put(folder, name, stream.read())
        return cached

    def _put(self, folder: str, name: str, content: bytes) -> None:
        self._write(folder, name, content)

    def _write(self, folder: str, name: str, content: bytes) -> None:
        self.filesystem.create_dir(self._at(folder), recursive=True)
        with self.filesystem.open_output_stream(f"{self._at(folder)}/{name}") as sink:
            sink.write(content)

    def _at(self, folder: str) -> str:
        return f"{self.root}/{folder}" if folder else self.root


def open_shards(location: Path | tuple[Any, str], cache: Path | None = None) -> Shards:
    """Return the shards in a folder of this machine, or in ``(file system, path)`` of pyarrow."""
    return LocalShards(location) if isinstance(location, Path) else RemoteShards(*location, cache=cache)


def _is_shard(name: str) -> bool:
    return name.endswith(SUFFIX) and not name.startswith(".")


def _sweep(directory: Path) -> None:
    """Remove what writers left that died long ago; a living one has not held a file open for a day."""
    for leftover in directory.glob(".*.part"):
        with contextlib.suppress(OSError):
            if time.time() - leftover.stat().st_mtime > _ABANDONED_SECONDS:
                leftover.unlink()
