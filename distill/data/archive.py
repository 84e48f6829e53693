"""Archives that hold a data set's files: unpacked once, into this machine's cache."""

from __future__ import annotations

import hashlib
import logging
import os
import shutil
import stat
import tarfile
import time
import uuid
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import IO, cast

from distill.cache import VARIABLE, cache_folder
from distill.data.roots import ListedFile, LocalRoot, Root
from distill.file_lock import try_lock

MAX_FILES = 3_000_000
"""More files than the largest of the usual data sets have."""

MAX_RATIO = 100
"""How many times an archive's size its files may have, beyond ``FREE_BYTES``: images shrink little, zeros endlessly."""

FREE_BYTES = 10**8
_LIMIT = f"at most {MAX_RATIO} times its size and {FREE_BYTES // 10**6} MB"

_BESIDE = (".", "__macosx", "licen", "readme")
"""How names begin, in small letters, of what may lie beside the folder that holds all."""

_CHUNK_BYTES = 2**20
_POLL_SECONDS = 0.1
_SUFFIXES = (".tar", ".tar.bz2", ".tar.gz", ".tar.xz", ".tbz2", ".tgz", ".txz", ".zip")

_logger = logging.getLogger(__name__)


def unpacked(root: Root, name: str) -> LocalRoot:
    """Return the folder of this machine where an archive's files lie, unpacked unless they are there already.

    Files appear under ``DISTILLERY_CACHE`` all at once, when the last is written; the folder's name digests location,
    size and time of the archive, so that a changed one is unpacked anew. Only regular files are taken: an archive
    with a link, a device or a name that leads out of it is refused. Where all but a licence
    and a readme lies in one folder, that is it.

    Where ``root`` is behind a URI, the archive is copied here for that.

    Args:
        root: the folder that holds the archive.
        name: of the archive, relative to ``root``: a tar, compressed or not, or a zip.

    Raises:
        ValueError: there is no such archive, it cannot be read, holds what it must not, or the cache cannot be
            written to.
    """
    if not name.lower().endswith(_SUFFIXES):
        raise ValueError(f"archive must be a tar or a zip, named {', '.join(_SUFFIXES)}, found {name!r}")
    archive = root.find(name)
    if archive is None:
        raise ValueError(f"archive must be a file in root, found no {name!r} in {root.location()}")
    folder = cache_folder() / "archives" / _folder_name(root, archive)
    try:
        if not folder.is_dir():
            _unpack_once(root, archive, folder)
    except OSError as error:
        raise ValueError(
            f"cannot unpack {root.location(name)} to {folder.parent}: {error}; {VARIABLE} names another folder"
        ) from error
    entries = [entry for entry in folder.iterdir() if not entry.name.lower().startswith(_BESIDE)]
    return LocalRoot(entries[0] if len(entries) == 1 and entries[0].is_dir() else folder)


def _folder_name(root: Root, archive: ListedFile) -> str:
    state = f"{root.location(archive.name)}\0{archive.size}\0{archive.modified_ns}"
    stem = PurePosixPath(archive.name).name.partition(".")[0]
    return f"{stem[:40]}-{hashlib.sha256(state.encode()).hexdigest()[:16]}"


def _unpack_once(root: Root, archive: ListedFile, folder: Path) -> None:
    """Unpack an archive unless another process does so meanwhile."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    with folder.with_name(f"{folder.name}.lock").open("ab") as lock:
        if not try_lock(lock.fileno()):
            _logger.info("waiting for another process that unpacks %s", root.location(archive.name))
            while not try_lock(lock.fileno()):
                time.sleep(_POLL_SECONDS)
        if folder.is_dir():
            return
        for leftover in folder.parent.glob(f".{folder.name}-*"):
            shutil.rmtree(leftover)
        aside = folder.with_name(f".{folder.name}-{uuid.uuid4().hex}")
        aside.mkdir()
        try:
            path = root.fetch([archive]) / archive.name
            _logger.info("unpacking %s to %s", root.location(archive.name), folder)
            _unpack(path, archive, aside, root.location(archive.name))
            os.sync()  # the folder must not get its name before its files' content is on the disk
            aside.rename(folder)
        finally:
            shutil.rmtree(aside, ignore_errors=True)


def _unpack(path: Path, archive: ListedFile, folder: Path, location: str) -> None:
    """Write an archive's files below a folder, as long as they are no more than an honest archive has."""
    left = FREE_BYTES + MAX_RATIO * archive.size
    members = _zip_members if path.name.lower().endswith(".zip") else _tar_members
    number = -1
    with _explained(location):
        for number, (name, content) in enumerate(members(path, location)):
            if number >= MAX_FILES:
                raise ValueError(f"archive {location} must hold at most {MAX_FILES:,} files, found more")
            target = folder / _checked(name, location)
            target.parent.mkdir(parents=True, exist_ok=True)
            with content, target.open("xb") as sink:
                while chunk := content.read(_CHUNK_BYTES):
                    left -= len(chunk)
                    if left < 0:
                        raise ValueError(f"archive {location} must unpack to {_LIMIT}, found more")
                    sink.write(chunk)
    if number < 0:
        raise ValueError(f"archive {location} must hold files, found none")


@contextmanager
def _explained(location: str) -> Iterator[None]:
    """Say in one line that an archive is damaged: each decompressor has errors of its own."""
    try:
        yield
    except ValueError:
        raise
    except FileExistsError as error:
        raise ValueError(f"archive {location} must hold each file once, found one twice") from error
    except Exception as error:
        if isinstance(error, OSError) and error.errno is not None:  # the disk's, and not a decompressor's
            raise
        reason = (
            str(error).partition("\n")[0].rstrip(":") or "it is cut off"
        )  # tarfile adds a line for each compression
        raise ValueError(f"archive {location} cannot be read: {reason}") from error


def _tar_members(path: Path, location: str) -> Iterator[tuple[str, IO[bytes]]]:
    with tarfile.open(path, "r:*") as archive:
        for member in archive:
            if member.isdir():
                continue
            content = archive.extractfile(member) if member.isreg() else None
            if content is None:
                raise ValueError(_irregular(member.name, location))
            yield member.name, content
        file = cast(IO[bytes], archive.fileobj)
        if file.tell() == archive.offset:  # tarfile takes a missing end for the end
            raise EOFError
        while file.read(_CHUNK_BYTES):  # the decompressor checks the rest
            pass


def _zip_members(path: Path, location: str) -> Iterator[tuple[str, IO[bytes]]]:
    with zipfile.ZipFile(path) as archive:
        for member in archive.infolist():
            if member.is_dir():
                continue
            kind = stat.S_IFMT(member.external_attr >> 16)
            if kind not in (0, stat.S_IFREG):
                raise ValueError(_irregular(member.filename, location))
            yield member.filename, archive.open(member)


def _irregular(name: str, location: str) -> str:
    return f"archive {location} must hold files and folders alone, found a link or a device, {name!r}"


def _checked(name: str, location: str) -> str:
    """Return a member's name if it stays below the folder that it is written to."""
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts or "\\" in name or "\0" in name or not path.parts:
        raise ValueError(f"archive {location} must hold names that do not lead out of it, found {name!r}")
    return name
