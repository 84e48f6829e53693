"""A root behind a URI: listed where it is, copied to this machine to be loaded."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import IO, Any, cast

from pyarrow.fs import FileInfo, FileSelector, FileType

from distill.data.roots.base import Root
from distill.data.roots.copies import Copies, copies_folder
from distill.data.roots.listed_file import ListedFile
from distill.uri import open_uri, reason, without_secrets

_CHUNK_BYTES = 8 * 2**20


class RemoteRoot(Root):
    """A folder behind a URI that pyarrow or fsspec can open.

    Args:
        uri: of the folder, such as ``s3://bucket/fashion``.

    Raises:
        ValueError: nothing answers to the URI, or there is no such folder.
    """

    def __init__(self, uri: str) -> None:
        self._uri = uri
        with self._explained():
            self._filesystem, path = _open(uri)
        self._path = path.rstrip("/")
        (info,) = self._look([self._path])
        if info.type == FileType.NotFound:
            raise ValueError(f"root must be an existing folder, found none at {self.location()}")

    def location(self, name: str = "") -> str:
        folder = without_secrets(self._uri).rstrip("/")
        return f"{folder}/{name}" if name else folder

    @property
    def downloads_to(self) -> None:
        return None

    def find(self, *names: str) -> ListedFile | None:
        infos = self._look([self._at(name) for name in names])
        return next((self._listed(info) for info in infos if info.type == FileType.File), None)

    def folders(self, name: str = "") -> list[str]:
        infos = self._list(name, recursive=False)
        return sorted(info.base_name for info in infos if info.type == FileType.Directory)

    def files(self, name: str = "") -> list[ListedFile]:
        return [self._listed(info) for info in self._list(name, recursive=True) if info.type == FileType.File]

    def open(self, name: str) -> IO[bytes]:
        with self._explained(name):
            # An input *stream* would unpack what is called .gz.
            return cast(IO[bytes], self._filesystem.open_input_file(self._at(name)))

    def fetch(self, files: Sequence[ListedFile]) -> Path:
        return Copies(copies_folder(self._uri), location=self.location, chunks=self._chunks).provide(files)

    def _chunks(self, name: str) -> Iterator[bytes]:
        """Yield the content of a file."""
        with self._explained(name), self.open(name) as file:
            while chunk := file.read(_CHUNK_BYTES):
                yield chunk

    def _at(self, name: str) -> str:
        return f"{self._path}/{name}" if name else self._path

    def _look(self, paths: list[str]) -> list[FileInfo]:
        with self._explained():
            return cast(list[FileInfo], self._filesystem.get_file_info(paths))

    def _list(self, name: str, *, recursive: bool) -> list[FileInfo]:
        selector = FileSelector(self._at(name), recursive=recursive, allow_not_found=True)
        with self._explained(name):
            return cast(list[FileInfo], self._filesystem.get_file_info(selector))

    def _listed(self, info: Any) -> ListedFile:
        """Return a listing's entry, its name relative to the root.

        Raises:
            ValueError: its name would lead out of the folder that it is copied to: object stores allow any name.
        """
        name = info.path.lstrip("/")[len(self._path.lstrip("/")) :].lstrip("/")
        if ".." in PurePosixPath(name).parts or "\0" in name:
            raise ValueError(f"file names in root must not lead out of it, found {name!r} in {self.location()}")
        if info.size is None:
            raise ValueError(f"root must be where files have sizes, found none of {self.location(name)}")
        return ListedFile(name, info.size, info.mtime_ns)

    @contextmanager
    def _explained(self, name: str = "") -> Iterator[None]:
        """Say in one line what went wrong where: file systems raise OSError, fsspec's nearly anything."""
        try:
            yield
        except ValueError:
            raise
        except Exception as error:
            raise ValueError(
                f"root must be a folder that this machine can reach and read, found {self.location(name)}: "
                f"{reason(error, self._uri)}"
            ) from error


def _open(uri: str) -> tuple[Any, str]:
    try:
        return open_uri(uri)
    except ValueError as error:
        raise ValueError(f"root must be a path or a URI that can be opened: {error}") from None
