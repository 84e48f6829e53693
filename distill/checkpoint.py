"""The durable store of training checkpoints."""

from __future__ import annotations

import contextlib
import errno
import logging
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from distill.checkpoint_content import Content, check_content, size_bytes, write_content
from distill.checkpoint_manifest import MANIFEST, CheckpointError, Manifest, check_file_name
from distill.folders import Folder, LocalFolder, RemoteFolder

log = logging.getLogger(__name__)

__all__ = ["Checkpoint", "CheckpointError", "Checkpoints", "Content"]

_NAME = re.compile(r"epoch-\d{4,}(-\d+)?")
_DISK_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_MEGABYTE = 1e6


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint whose files have been compared with its manifest.

    Attributes:
        name: such as ``epoch-0007``.
        directory: local directory of its files; of a remote one a copy, which lives as long as this object, or until
            the store that gave it fetches another.
        manifest: epoch, step, configuration hash and files.
        damaged: newer checkpoints that were passed over, each with the reason; the user should hear of them.
    """

    name: str
    directory: Path
    manifest: Manifest
    damaged: tuple[str, ...]
    _folder: Folder = field(repr=False, compare=False)

    @property
    def epoch(self) -> int:
        """Finished epochs."""
        return self.manifest.epoch

    @property
    def step(self) -> int:
        """Optimiser steps made."""
        return self.manifest.step

    def path(self, name: str) -> Path:
        """Return the local path of a file, after comparing it with the manifest once more.

        Raises:
            CheckpointError: there is no such file, or it has changed.
        """
        if name not in self.manifest.files:
            raise CheckpointError(f"{self.directory} has no file {name!r}, only {', '.join(self.manifest.files)}")
        try:
            self.manifest.check(self.directory, [name])
        except CheckpointError as error:
            raise CheckpointError(f"{self.directory}: {error}") from error
        return self.directory / name

    def load(self, name: str) -> Any:
        """Return what ``torch.save`` wrote to a file, on the CPU; runs no code from it.

        Raises:
            CheckpointError: there is no such file, or it has changed.
        """
        return torch.load(self.path(name), map_location="cpu", weights_only=True)


class Checkpoints:
    """Checkpoints of one run, each a directory ``epoch-0007`` with its files and a manifest of sizes and SHA-256.

    A checkpoint appears whole or not at all, whenever the writer is killed; a damaged one is found, named and passed
    over. On a local disk it is written aside, flushed and renamed; elsewhere the manifest is uploaded last. One process
    writes (of several ranks, rank 0); any number may read.

    Args:
        directory: a local directory, made when first written; or a pair of a ``pyarrow.fs.FileSystem`` and a path.
        keep: how many of the newest checkpoints to keep; with one alone, nothing is left when it is damaged.

    Raises:
        ValueError: ``keep`` is below one, or ``directory`` is a URI.
    """

    def __init__(self, directory: str | Path | tuple[Any, str], *, keep: int = 2) -> None:
        if keep < 1:
            raise ValueError(f"keep must be at least 1, found {keep}")
        self.keep = keep
        self._folder = _folder(directory)
        self._damaged: set[str] = set()

    def save(self, files: Mapping[str, Content], *, epoch: int, step: int, config_hash: str) -> str:
        """Write a checkpoint, then remove what it makes superfluous.

        Removed are all but the ``keep`` newest, an older one of the same epoch, and those that :meth:`latest` found
        damaged.

        Args:
            files: contents by file name, such as ``{"state.pt": {...}, "trajectory.parquet": trajectory.write}``.
            epoch: finished epochs; later checkpoints must not exist.
            step: optimiser steps made.
            config_hash: identifies the configuration; see :meth:`latest`.

        Returns:
            The checkpoint's name.

        Raises:
            ValueError: a content could be written but not read again; the message names it.
            CheckpointError: there are checkpoints of later epochs, so this run should have resumed.
            OSError: it cannot be written; the checkpoints that exist are untouched.
        """
        for name, content in files.items():
            check_file_name(name)
            if not callable(content):
                check_content(name, content)
        with self._explained(epoch, files), self._folder.staging() as staged:
            name = self._new_name(epoch)
            for file, content in files.items():
                write_content(staged / file, content)
            manifest = Manifest.describe(staged, files, epoch=epoch, step=step, config_hash=config_hash)
            (staged / MANIFEST).write_bytes(manifest.encode())
            self._folder.publish(staged, name, [*files, MANIFEST])
            self._remove_superfluous(name)
        return name

    def latest(self, config_hash: str | None = None) -> Checkpoint | None:
        """Return the newest undamaged checkpoint, or ``None`` where there has never been one.

        Newest is the one of the highest epoch; no clock is asked.

        Args:
            config_hash: what the run would go on with; ``None`` accepts any.

        Raises:
            CheckpointError: every checkpoint is damaged, or the newest is that of another configuration.
            OSError: the file system does not answer, or refuses: that says nothing about the checkpoints.
        """
        damaged: list[str] = []
        for name in reversed(self._names()):
            try:
                checkpoint = self._checked(name, tuple(damaged))
            except CheckpointError as error:
                damaged.append(f"{self._folder.location(name)}: {error}")
                self._damaged.add(name)
                log.warning("checkpoint %s is damaged: %s; trying the one before", self._folder.location(name), error)
                continue
            if config_hash is not None and checkpoint.manifest.config_hash != config_hash:
                raise CheckpointError(
                    f"{self._folder.location(name)} must be of configuration {config_hash}, "
                    f"found {checkpoint.manifest.config_hash}: take another folder, or remove this one to start anew"
                )
            return checkpoint
        if damaged:
            raise CheckpointError(
                f"all checkpoints are damaged: {'; '.join(damaged)}. Restore one from a copy, or remove "
                f"{self._folder.location()} to start anew"
            )
        return None

    def _names(self) -> list[str]:
        """Return the names of all checkpoints, oldest first."""
        return sorted(self._folder.names(), key=_order)

    def _checked(self, name: str, damaged: tuple[str, ...]) -> Checkpoint:
        directory = self._folder.fetch(name)
        manifest = Manifest.read(directory)
        if manifest.epoch != _order(name)[0]:
            raise CheckpointError(f"its manifest is that of epoch {manifest.epoch}")
        manifest.check(directory)
        return Checkpoint(name, directory, manifest, damaged, self._folder)

    def _new_name(self, epoch: int) -> str:
        """Return a name that no checkpoint has: they are never written over."""
        names = [name for name in self._names() if name not in self._damaged]
        later = [name for name in names if _order(name)[0] > epoch]
        if later:
            raise CheckpointError(
                f"{self._folder.location()} has {later[-1]}, later than epoch {epoch}, which was to be saved: "
                "resume from it, or take another folder"
            )
        attempts = [attempt for found, attempt in map(_order, self._names()) if found == epoch]
        return f"epoch-{epoch:04d}" + (f"-{max(attempts) + 1}" if attempts else "")

    def _remove_superfluous(self, newest: str) -> None:
        epoch = _order(newest)[0]
        others = [name for name in self._names() if name != newest]
        superseded = {name for name in others if name in self._damaged or _order(name)[0] == epoch}
        good = [name for name in others if name not in superseded]
        for name in [*superseded, *good[: max(0, len(good) - self.keep + 1)]]:
            try:
                self._folder.remove(name)
                self._damaged.discard(name)
            except OSError as error:
                log.warning("checkpoint %s cannot be removed: %s", self._folder.location(name), error)

    @contextlib.contextmanager
    def _explained(self, epoch: int, files: Mapping[str, Content]) -> Iterator[None]:
        """Turn whatever a full disk raises into one line; ``torch.save`` says only ``unexpected pos 576 vs 534``."""
        try:
            yield
        except (OSError, RuntimeError) as error:
            free_bytes = self._folder.free_bytes()
            if not _is_disk_full(error) and free_bytes > _MEGABYTE:
                raise
            needed_bytes = sum(map(size_bytes, files.values()))
            raise OSError(
                f"cannot write {self._folder.location(f'epoch-{epoch:04d}')}: needs at least "
                f"{needed_bytes / _MEGABYTE:.1f} MB, {free_bytes / _MEGABYTE:.1f} MB free"
            ) from error


def _folder(directory: str | Path | tuple[Any, str]) -> Folder:
    if isinstance(directory, tuple):
        filesystem, path = directory
        return RemoteFolder(filesystem, path, entries=_NAME, commit_file=MANIFEST)
    if "://" in str(directory):
        raise ValueError(
            f"directory must be a local path or a pair (file system, path), found the URI {directory}: "
            "give pyarrow.fs.FileSystem.from_uri(uri)"
        )
    return LocalFolder(Path(directory), entries=_NAME)


def _order(name: str) -> tuple[int, int]:
    """Return the epoch and the attempt at it that a checkpoint's name says."""
    _, epoch, *attempt = name.split("-")
    return int(epoch), int(attempt[0]) if attempt else 1


def _is_disk_full(error: BaseException | None) -> bool:
    """Whether an error, or one that it came from, says so."""
    while error is not None:
        if isinstance(error, OSError) and error.errno in _DISK_FULL:
            return True
        error = error.__cause__ or error.__context__
    return False
