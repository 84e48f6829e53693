"""A folder to read from, on this disk or behind a URI."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlparse


@dataclass(frozen=True)
class Folder:
    """Reads small text files of a folder; results may lie on storage that this machine has not mounted.

    Attributes:
        location: a path, or any URI that pyarrow can open, such as ``s3://bucket/results``.
    """

    location: str

    @property
    def local(self) -> Path | None:
        """The path on this disk, or None for a remote folder."""
        parts = urlparse(self.location)
        if parts.scheme == "file":
            return Path(unquote(parts.path))
        return None if "://" in self.location else Path(self.location)

    def child(self, name: str) -> Folder:
        """Return the folder called ``name`` inside this one."""
        base, mark, query = self.location.partition("?")  # options of a remote file system follow the path
        return Folder(f"{base.rstrip('/')}/{name}{mark}{query}")

    def has(self, name: str) -> bool:
        """Return whether the folder holds a file called ``name``."""
        path = self.local
        if path is not None:
            return (path / name).is_file()
        return self._remote_file(name) is not None

    def read_text(self, name: str) -> str | None:
        """Return the text of a file, or None where there is none.

        Bytes that a crash left half-written are replaced, so that the lines around them stay readable.
        """
        path = self.local
        if path is not None:
            file = path / name
            return file.read_bytes().decode("utf-8", errors="replace") if file.is_file() else None
        return self._read_remote(name)

    def names(self) -> list[str]:
        """Return the names of the folders in this one, sorted; empty where it does not exist."""
        path = self.local
        if path is not None:
            return sorted(entry.name for entry in path.iterdir() if entry.is_dir()) if path.is_dir() else []
        from pyarrow import fs

        system, root = fs.FileSystem.from_uri(self.location)
        entries = system.get_file_info(fs.FileSelector(root, allow_not_found=True))
        return sorted(entry.base_name for entry in entries if entry.type == fs.FileType.Directory)

    def _read_remote(self, name: str) -> str | None:
        found = self._remote_file(name)
        if found is None:
            return None
        system, path = found
        with system.open_input_stream(path) as stream:
            content: bytes = stream.read()
        return content.decode("utf-8", errors="replace")

    def _remote_file(self, name: str) -> tuple[Any, str] | None:
        # Imported late: a local comparison must not wait for pyarrow.
        from pyarrow import fs

        system, root = fs.FileSystem.from_uri(self.location)
        path = f"{root.rstrip('/')}/{name}"
        return (system, path) if system.get_file_info(path).type == fs.FileType.File else None
