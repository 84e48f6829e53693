"""Copies of a remote root's files on this machine, shared by all processes that read them."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import logging
import os
import re
import shutil
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import IO

from distill.cache import VARIABLE, cache_folder
from distill.data.roots.listed_file import ListedFile
from distill.file_lock import try_lock

_NUM_THREADS = 16
_BATCH = 4096
_POLL_SECONDS = 0.1

log = logging.getLogger(__name__)

_in_use: dict[Path, IO[bytes]] = {}
"""The copies that this process reads, each by its locked file: held until the process ends, however it ends."""


def copies_folder(uri: str) -> Path:
    """Return the folder of this machine where copies of a URI's files lie, below the one of ``DISTILLERY_CACHE``."""
    words = re.findall(r"[\w-]+", uri.partition("?")[0])
    return cache_folder() / "data" / f"{words[-1][:40]}-{_digest(uri.rstrip('/'))}"


class Copies:
    """The copies of one remote root: a folder for each state of its files, with nothing in it but these files.

    A file appears under its name once it is whole and flushed to the disk, so a copy is complete when every file is
    there in its listed size; what a killed process has copied is kept. A copy is never changed, so a training reads on
    what it began with when the remote changes: the new state becomes a copy of its own, in which unchanged files are
    hard links, and older copies of the same files are removed unless a living process reads them.

    Args:
        folder: of all copies of the root; made when first written.
        location: returns what messages call a file of the root, or by ``""`` the root itself.
        chunks: yields the content of a file of the root.
    """

    def __init__(
        self, folder: Path, *, location: Callable[[str], str], chunks: Callable[[str], Iterator[bytes]]
    ) -> None:
        self._folder = folder
        self._location = location
        self._chunks = chunks

    def provide(self, files: Sequence[ListedFile]) -> Path:
        """Return the folder of a complete copy, made unless there is one; it stays until this process ends.

        Raises:
            ValueError: the disk is full or cannot be written to, or a file cannot be read as it was listed.
        """
        copy = self._folder / _state(files)
        with self._explained():
            self._folder.mkdir(parents=True, exist_ok=True)
            _hold(_lock_file(copy))
            if _missing(copy, files):
                with self._alone():
                    self._complete(copy, files)
        return copy

    def _complete(self, copy: Path, files: Sequence[ListedFile]) -> None:
        missing = _missing(copy, files)
        if not missing:
            return  # another process has copied them meanwhile
        damaged = [file.name for file in missing if (copy / file.name).exists()]
        if damaged:
            log.warning(
                "%d files in %s are not as listed, such as %s: copying them again", len(damaged), copy, damaged[0]
            )
        for leftover in self._folder.glob(".part-*"):
            leftover.unlink()
        for folder in {(copy / file.name).parent for file in missing}:
            folder.mkdir(parents=True, exist_ok=True)
        missing = self._link_unchanged(copy, missing)
        self._remove_superseded(copy, files)
        self._check_space(missing)
        num_bytes = sum(file.size for file in missing)
        log.info("copying %d files (%s) from %s to %s", len(missing), _size(num_bytes), self._location(""), copy)
        self._copy_all(copy, missing)

    def _others(self, copy: Path) -> list[Path]:
        return [other for other in self._folder.iterdir() if other.is_dir() and other != copy]

    def _link_unchanged(self, copy: Path, files: Sequence[ListedFile]) -> list[ListedFile]:
        """Link files that another copy has in the same size and time, and return the others."""
        others = self._others(copy)
        return [file for file in files if not any(_link(other / file.name, copy / file.name, file) for other in others)]

    def _remove_superseded(self, copy: Path, files: Sequence[ListedFile]) -> None:
        """Remove copies of the same files in an older state that no living process reads."""
        for other in self._others(copy):
            if any((other / file.name).exists() for file in files):
                with _lock_file(other).open("ab") as lock:
                    if try_lock(lock.fileno()):
                        log.info("removing %s: the files of %s have changed", other, self._location(""))
                        shutil.rmtree(other)

    def _check_space(self, files: Sequence[ListedFile]) -> None:
        needed, free = sum(file.size for file in files), shutil.disk_usage(self._folder).free
        if needed > free:
            raise ValueError(_too_full(self._folder, self._location(""), needed=needed, free=free))

    def _copy_all(self, copy: Path, files: Sequence[ListedFile]) -> None:
        pool = ThreadPoolExecutor(_NUM_THREADS, thread_name_prefix="copy")
        try:
            for start in range(0, len(files), _BATCH):
                for _ in pool.map(lambda file: self._copy(file, copy / file.name), files[start : start + _BATCH]):
                    pass
        except OSError as error:
            if error.errno != errno.ENOSPC:
                raise
            left = sum(file.size for file in _missing(copy, files))
            free = shutil.disk_usage(self._folder).free
            raise ValueError(_too_full(self._folder, self._location(""), needed=left, free=free)) from error
        finally:
            pool.shutdown(cancel_futures=True)

    def _copy(self, file: ListedFile, target: Path) -> None:
        aside = self._folder / f".part-{uuid.uuid4().hex}"
        try:
            with aside.open("wb") as sink:
                for chunk in self._chunks(file.name):
                    sink.write(chunk)
                    if sink.tell() > file.size:
                        break
                found = sink.tell()
                sink.flush()
                os.fsync(sink.fileno())
            if found != file.size:
                raise ValueError(
                    f"{self._location(file.name)} must have the {file.size:,} bytes that its listing says, found "
                    f"{'more' if found > file.size else f'{found:,}'}: cut off, or changed meanwhile; try again"
                )
            if file.modified_ns is not None:
                os.utime(aside, ns=(file.modified_ns, file.modified_ns))
            aside.replace(target)
        finally:
            aside.unlink(missing_ok=True)

    @contextlib.contextmanager
    def _alone(self) -> Iterator[None]:
        """Wait until no other process copies from this root."""
        with (self._folder / ".lock").open("ab") as file:
            if not try_lock(file.fileno()):
                log.info("waiting for another process that copies from %s", self._location(""))
                while not try_lock(file.fileno()):
                    time.sleep(_POLL_SECONDS)
            yield

    @contextlib.contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise ValueError(
                f"cannot copy {self._location('')} to {self._folder}: {error}; {VARIABLE} names another folder"
            ) from error


def _hold(lock: Path) -> None:
    """Keep others from removing a copy for as long as this process lives."""
    if lock not in _in_use:
        file = lock.open("ab")
        while not try_lock(file.fileno(), shared=True):
            time.sleep(_POLL_SECONDS)  # it is being removed just now
        _in_use[lock] = file


def _lock_file(copy: Path) -> Path:
    """Return the empty file whose lock says that a copy is in use; it outlives the copy."""
    return copy.with_name(f"{copy.name}.lock")


def _missing(copy: Path, files: Sequence[ListedFile]) -> list[ListedFile]:
    """Return the files that are not there in their listed size."""
    return [file for file in files if _size_of(copy / file.name) != file.size]


def _size_of(path: Path) -> int | None:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return None


def _link(old: Path, new: Path, file: ListedFile) -> bool:
    """Make ``new`` the same file as ``old``, if that is the one listed."""
    try:
        state = old.stat()
        if (state.st_size, state.st_mtime_ns) != (file.size, file.modified_ns):
            return False
        new.unlink(missing_ok=True)
        os.link(old, new)
    except OSError:  # there is no such file, or the file system has no hard links: it is copied
        return False
    return True


def _state(files: Sequence[ListedFile]) -> str:
    """Return what names a copy: another name, size or time makes another state."""
    content = hashlib.sha256()
    for file in sorted(files):
        content.update(f"{file.name}\0{file.size}\0{file.modified_ns}\0".encode())
    return content.hexdigest()[:16]


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _too_full(folder: Path, location: str, *, needed: int, free: int) -> str:
    return (
        f"the disk of {folder} must have {_size(needed)} free for the files of {location}, found {_size(free)}; make "
        f"room, or name another folder by {VARIABLE}"
    )


def _size(num_bytes: int) -> str:
    """Return a size for people."""
    size = float(num_bytes)
    for unit in ("B", "kB", "MB", "GB"):
        if size < 1000:
            return f"{size:.3g} {unit}"
        size /= 1000
    return f"{size:.3g} TB"
