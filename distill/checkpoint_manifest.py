"""What a checkpoint says about itself, and whether its files agree."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

MANIFEST = "manifest.json"
"""Name of the manifest's file; written last."""

_FORMAT = 1
_FILE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


class CheckpointError(ValueError):
    """A checkpoint is damaged, or does not belong here; the message says which, what is wrong, and what to do."""


@dataclass(frozen=True)
class Manifest:
    """The contents of a checkpoint's ``manifest.json``; it carries its own SHA-256.

    Attributes:
        epoch: finished epochs.
        step: optimiser steps made.
        config_hash: identifies the configuration of the run.
        created: time of writing, ISO 8601, UTC; for people, nothing is ordered by it.
        files: size in bytes and SHA-256 (hexadecimal) of every other file, by name.
    """

    epoch: int
    step: int
    config_hash: str
    created: str
    files: Mapping[str, tuple[int, str]]

    @classmethod
    def describe(cls, directory: Path, files: Iterable[str], *, epoch: int, step: int, config_hash: str) -> Manifest:
        """Measure files that have just been written."""
        created = datetime.now(UTC).isoformat(timespec="seconds")
        described = {name: ((directory / name).stat().st_size, _sha256(directory / name)) for name in files}
        return cls(epoch, step, config_hash, created, described)

    @classmethod
    def read(cls, directory: Path) -> Manifest:
        """Read a directory's manifest.

        Raises:
            CheckpointError: it is missing, or damaged.
            PermissionError: the file may not be read, which is no damage.
        """
        try:
            return cls.decode((directory / MANIFEST).read_bytes())
        except PermissionError:
            raise
        except OSError as error:
            raise CheckpointError(f"{MANIFEST} cannot be read ({error.strerror})") from error

    @classmethod
    def decode(cls, content: bytes) -> Manifest:
        """Return what :meth:`encode` made the bytes of.

        Raises:
            CheckpointError: it made other bytes, or none.
        """
        try:
            manifest = cls._from_plain(json.loads(content))
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise CheckpointError(f"{MANIFEST} is damaged ({error})") from error
        # its own digest is among the bytes, so this finds every change
        if manifest.encode() != content:
            raise CheckpointError(f"{MANIFEST} does not match its own SHA-256")
        return manifest

    @classmethod
    def _from_plain(cls, plain: Any) -> Manifest:
        if plain["format"] != _FORMAT:
            raise ValueError(f"format must be {_FORMAT}, found {plain['format']!r}")
        files = {check_file_name(name): (file["bytes"], file["sha256"]) for name, file in plain["files"].items()}
        return cls(plain["epoch"], plain["step"], plain["config_hash"], plain["created"], files)

    def encode(self) -> bytes:
        """Return the bytes of ``manifest.json``."""
        plain: dict[str, Any] = {
            "format": _FORMAT,
            "epoch": self.epoch,
            "step": self.step,
            "config_hash": self.config_hash,
            "created": self.created,
            "files": {name: {"bytes": size, "sha256": digest} for name, (size, digest) in self.files.items()},
        }
        body = json.dumps(plain, indent=2)
        plain["manifest_sha256"] = hashlib.sha256(body.encode()).hexdigest()
        return f"{json.dumps(plain, indent=2)}\n".encode()

    def check(self, directory: Path, names: Iterable[str] | None = None) -> None:
        """Compare files with what is written here.

        Args:
            directory: where the files lie.
            names: which files; default: all.

        Raises:
            CheckpointError: one is missing, or differs in size or contents.
            PermissionError: one may not be read, which is no damage.
        """
        for name in self.files if names is None else names:
            size_bytes, digest = self.files[name]
            try:
                found_bytes = (directory / name).stat().st_size
                if found_bytes != size_bytes:
                    raise CheckpointError(f"{name} has {found_bytes} bytes, the manifest says {size_bytes}")
                if _sha256(directory / name) != digest:
                    raise CheckpointError(f"{name} does not match its SHA-256")
            except PermissionError:
                raise
            except OSError as error:
                raise CheckpointError(f"{name} cannot be read ({error.strerror})") from error


def check_file_name(name: str) -> str:
    """Return ``name`` if a checkpoint may hold a file of that name.

    Raises:
        ValueError: it is a path, hidden, or the manifest's own.
    """
    if not _FILE_NAME.fullmatch(name) or name == MANIFEST:
        raise ValueError(f"files must have plain names other than {MANIFEST}, found {name!r}")
    return name


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
