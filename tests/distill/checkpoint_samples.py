"""Small checkpoints, and places to keep them, for the tests of the store."""

import uuid
from pathlib import Path

import pyarrow.fs
import pytest
import torch

from distill.checkpoint import Checkpoints


def save(store: Checkpoints, epoch: int, *, config_hash: str = "abc", **options) -> str:
    files = {"state.pt": {"epoch": epoch, "weight": torch.full((50,), float(epoch))}, "rows.bin": rows(epoch)}
    return store.save(files, epoch=epoch, step=10 * epoch, config_hash=config_hash, **options)


def rows(epoch: int):
    return lambda path: path.write_bytes(bytes([epoch % 256]) * 1000)


def memory_filesystem():
    fsspec = pytest.importorskip("fsspec", reason="fsspec, which torch brings, is not installed")
    filesystem = fsspec.filesystem("memory")
    return pyarrow.fs.PyFileSystem(pyarrow.fs.FSSpecHandler(filesystem)), f"bucket-{uuid.uuid4().hex}/run"


def names(place) -> list[str]:
    """What lies in a store's folder, beside the lock."""
    if isinstance(place, Path):
        return sorted(entry.name for entry in place.iterdir() if entry.name != ".lock")
    filesystem, path = place
    return sorted(info.base_name for info in filesystem.get_file_info(pyarrow.fs.FileSelector(path)))
