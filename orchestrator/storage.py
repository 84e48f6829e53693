"""A folder for results: on this disk or behind any URI that pyarrow or fsspec can open."""

from __future__ import annotations

import os
import shutil
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import unquote, urlsplit

from distill.uri import is_uri, open_uri

MANIFEST = "manifest.json"
"""The file that is written last into a folder: where it is missing, the folder is not whole."""

OBJECT_STORES = ("s3", "gcs", "abfs")
"""Where folders don't exist: creating one leaves an empty object behind."""


class Storage:
    """Reads and writes one folder; nothing is ever seen half-written under its final name.

    On a disk, content is written aside, flushed to the device and renamed. Behind a URI, a file is written aside and
    moved, and a folder is complete once its ``manifest.json`` exists, which is written last.

    Args:
        location: a path (``~`` is expanded; relative to the working directory), ``file://``, or a URI such as
            ``s3://bucket/results?region=eu-west-1`` or ``gs://bucket/results``.

    Raises:
        ValueError: no file system answers to the URI's scheme, or the package for it is missing.
    """

    def __init__(self, location: str | Path) -> None:
        text = str(location)
        parts = urlsplit(text) if is_uri(text) else None
        self._options = f"?{parts.query}" if parts is not None and parts.query else ""
        self._path: Path | None = None
        self._system: Any = None
        if parts is None:
            self._path = Path(text).expanduser().absolute()
        elif parts.scheme == "file":
            self._path = Path(unquote(parts.path))
        self._base = str(self._path) if self._path is not None else text.partition("?")[0].rstrip("/")
        self._root = self._base
        if self._path is None:
            try:
                self._system, self._root = open_uri(text)
            except ValueError as error:
                raise ValueError(f"storage: {error}") from None

    def __repr__(self) -> str:
        return f"Storage({self.uri!r})"

    @property
    def uri(self) -> str:
        """What makes this storage again: an absolute path, or the URI with its options."""
        return self._base + self._options

    @property
    def name(self) -> str:
        """The last part of the location."""
        return PurePosixPath(self._base).name

    @property
    def is_local(self) -> bool:
        """Whether this is a folder on a disk of this machine, shared with others or not."""
        return self._path is not None

    @property
    def path(self) -> Path:
        """The folder on this machine.

        Raises:
            ValueError: the storage is behind a URI.
        """
        if self._path is None:
            raise ValueError(f"storage: {self.uri} is not a folder of this machine; use download or local")
        return self._path

    def child(self, *names: str) -> Storage:
        """Return the folder ``names`` inside this one."""
        return Storage("/".join([self._base.rstrip("/"), *names]) + self._options)

    def pyarrow(self, name: str = "") -> tuple[Any, str]:
        """Return the ``pyarrow.fs.FileSystem`` and the path in it of ``name``, or of this folder."""
        if self._system is None:
            from pyarrow import fs

            self._system = fs.LocalFileSystem()
        return self._system, self._at(name)

    def exists(self, name: str) -> bool:
        """Whether ``name``, a file or a folder, exists."""
        if self._path is not None:
            return (self._path / name).exists()
        return bool(self._kind(name))

    def names(self, name: str = "") -> list[str]:
        """Return what lies in the folder ``name``, sorted, without what is still being written; empty if missing."""
        if self._path is not None:
            folder = self._path / name
            found = [entry.name for entry in folder.iterdir()] if folder.is_dir() else []
        else:
            from pyarrow import fs

            selector = fs.FileSelector(self._at(name), allow_not_found=True)
            found = [entry.base_name for entry in self._system.get_file_info(selector)]
        return sorted(entry for entry in found if not entry.startswith("."))

    def read_text(self, name: str) -> str:
        """Return the text of a file.

        Raises:
            FileNotFoundError: there is none.
        """
        if self._path is not None:
            return (self._path / name).read_text(encoding="utf-8")
        with self._system.open_input_stream(self._at(name)) as stream:
            content: bytes = stream.read()
        return content.decode("utf-8")

    def write_text(self, name: str, text: str) -> None:
        """Write a file as a whole: a reader sees the old content or the new one."""
        with tempfile.TemporaryDirectory(prefix="distillery-") as folder:
            source = Path(folder) / "text"
            source.write_text(text, encoding="utf-8")
            self.upload(source, name)

    def upload(self, source: Path, name: str) -> None:
        """Copy a file or a folder of this machine to ``name``; a file replaces what was there.

        Raises:
            FileExistsError: ``source`` is a folder and ``name`` is there already: folders are never rewritten.
        """
        if source.is_dir():
            self._upload_folder(source, name)
        elif self._path is not None:
            _place(source, self._path / name)
        else:
            aside = self._at(_aside(name))
            self._write(source, aside)
            self._system.move(aside, self._at(name))

    def download(self, name: str, destination: Path) -> None:
        """Copy the file or folder ``name`` to ``destination``, a new file or folder of this machine.

        Raises:
            FileNotFoundError: there is no such file or folder.
        """
        system, path = self.pyarrow(name)
        kind = self._kind(name)
        if kind == "folder":
            from pyarrow import fs

            destination.mkdir(parents=True)
            fs.copy_files(path, str(destination), source_filesystem=system, destination_filesystem=fs.LocalFileSystem())
        elif kind == "file":
            destination.parent.mkdir(parents=True, exist_ok=True)
            with system.open_input_stream(path) as stream, destination.open("wb") as file:
                shutil.copyfileobj(stream, file)
        else:
            raise FileNotFoundError(f"storage: there is no {name} in {self.uri}")

    @contextmanager
    def local(self, name: str) -> Iterator[Path]:
        """Give ``name`` as a path to read on this machine; a copy behind a URI is removed afterwards."""
        if self._path is not None:
            yield self._path / name
            return
        with tempfile.TemporaryDirectory(prefix="distillery-") as folder:
            copy = Path(folder) / PurePosixPath(name).name
            self.download(name, copy)
            yield copy

    def remove(self, name: str) -> None:
        """Remove a file or a folder with all that is in it; without effect when it is missing."""
        system, path = self.pyarrow(name)
        kind = self._kind(name)
        if kind == "folder":
            system.delete_dir(path)
        elif kind == "file":
            system.delete_file(path)

    def _at(self, name: str) -> str:
        return f"{self._root.rstrip('/')}/{name}" if name else self._root

    def _kind(self, name: str) -> str:
        from pyarrow import fs

        system, path = self.pyarrow(name)
        kinds = {fs.FileType.File: "file", fs.FileType.Directory: "folder"}
        return kinds.get(system.get_file_info(path).type, "")

    def _upload_folder(self, source: Path, name: str) -> None:
        if self._path is not None:
            _place_folder(source, self._path / name)
            return
        if self.exists(f"{name}/{MANIFEST}"):
            raise FileExistsError(f"storage: {name} is in {self.uri} already")
        files = sorted(path.relative_to(source) for path in source.rglob("*") if path.is_file())
        for file in sorted(files, key=lambda path: path == Path(MANIFEST)):  # the manifest is the last one
            self._write(source / file, self._at(f"{name}/{file.as_posix()}"))

    def _write(self, source: Path, path: str) -> None:
        if self._system.type_name not in OBJECT_STORES:
            self._system.create_dir(str(PurePosixPath(path).parent), recursive=True)
        with source.open("rb") as file, self._system.open_output_stream(path) as stream:
            shutil.copyfileobj(file, stream)


def _aside(name: str) -> str:
    path = PurePosixPath(name)
    return str(path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}.part"))


def _place(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    aside = target.with_name(Path(_aside(target.name)).name)
    try:
        shutil.copyfile(source, aside)
        _flush(aside)
        aside.replace(target)
    finally:
        aside.unlink(missing_ok=True)
    _flush(target.parent)


def _place_folder(source: Path, target: Path) -> None:
    if target.exists():
        raise FileExistsError(f"storage: {target} exists already")
    target.parent.mkdir(parents=True, exist_ok=True)
    aside = target.with_name(Path(_aside(target.name)).name)
    try:
        shutil.copytree(source, aside)
        for path in [*aside.rglob("*"), aside]:
            _flush(path)
        aside.rename(target)
    finally:
        shutil.rmtree(aside, ignore_errors=True)
    _flush(target.parent)


def _flush(path: Path) -> None:
    """Make a file's content, or a folder's list of names, survive a loss of power."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
