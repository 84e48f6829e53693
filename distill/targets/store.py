"""The store of one teacher's answers: finds what is there, whole and undamaged, and takes what is new."""

from __future__ import annotations

import logging
import math
import re
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import torch
from torch import Tensor

from distill.identity import digest
from distill.targets.column import Column
from distill.targets.numerics import Numerics
from distill.targets.shard import Rows, ShardError, decode, encode
from distill.targets.shards import Shards
from distill.targets.view import View

log = logging.getLogger(__name__)

StorePrecision = Literal["exact", "float16"]

SHARD_BYTES = 64 * 2**20
"""Size that a shard may reach: small enough to hold one of each column in memory, large enough for full speed."""

_SHARD = re.compile(r"(?P<view>[0-9a-f]{32})\.(?P<part>\d{5})-of-(?P<parts>\d{5})\.[0-9a-f]{64}\.arrow")


class StoreRangeError(ValueError):
    """A target does not fit half precision."""


class TargetStore:
    """Answers of one teacher, in columns, for any number of views.

    A folder of shards belongs to (teacher, question, arithmetic), a shard's name to (view, part, content). The whole
    key stands in each shard as well, so that a file that was moved or renamed is never taken for another one.

    Args:
        shards: where they lie.
        teacher: digest of the teacher's structure and weights.
        precision: ``exact`` keeps every bit; ``float16`` halves the bytes of float32 and rounds to 11 bits.
        shard_bytes: size that a shard may reach.
    """

    def __init__(
        self, shards: Shards, teacher: str, *, precision: StorePrecision = "exact", shard_bytes: int = SHARD_BYTES
    ) -> None:
        self.shards = shards
        self.teacher = teacher
        self.precision = precision
        self.shard_bytes = shard_bytes

    def folder(self, column: Column, numerics: Numerics) -> str:
        """Return the folder of a column's shards."""
        return f"{self.teacher[:16]}/{digest(self._asked(column, numerics))[:32]}"

    def find(self, column: Column, view: View, numerics: Numerics) -> dict[str, list[Rows]] | None:
        """Map a column for a view into memory, if all of it is there and undamaged.

        Damaged shards are named in a message and removed.

        Returns:
            By layer, the arrays of its shards, in order; all but the last have equally many rows.
        """
        folder = self.folder(column, numerics)
        key = self._key(column, view, numerics)
        for parts in _by_part(self.shards.names(folder), view).values():
            mapped = [self._first_whole(folder, names, key) for names in parts]
            arrays = [part for part in mapped if part is not None]
            if len(arrays) == len(mapped) and sum(len(part[0]) for part in arrays) == view.num_rows:
                self.shards.use(folder)
                return dict(zip(column.layers, map(list, zip(*arrays, strict=True)), strict=True))
        return None

    def writer(self, column: Column, view: View, numerics: Numerics) -> ShardWriter:
        """Return what takes a column's rows, batch by batch and in order."""
        folder = self.folder(column, numerics)
        self.shards.use(folder)
        return ShardWriter(self, folder, column, view, self._key(column, view, numerics))

    def _first_whole(self, folder: str, names: Sequence[str], key: Mapping[str, Any]) -> list[Rows] | None:
        """Return the first of a part's files that is undamaged; different writers may have left more than one."""
        for name in names:
            try:
                return decode(self.shards.get(folder, name), key)
            except ShardError as error:
                log.warning("the target store leaves out a shard: %s; its teacher is asked again", error)
                self.shards.discard(folder, name)
        return None

    def _asked(self, column: Column, numerics: Numerics) -> dict[str, Any]:
        arithmetic = numerics.identity(exact=self.precision == "exact")
        return {"column": column.identity, "numerics": arithmetic, "stored": self.precision}

    def _key(self, column: Column, view: View, numerics: Numerics) -> dict[str, Any]:
        return {"teacher": self.teacher, "view": view.identity, **self._asked(column, numerics)}


class ShardWriter:
    """Takes the rows of a column for a view, in order, and writes a shard whenever one is full.

    Args:
        store: the store that it writes to.
        folder: of the shards.
        column: whose rows they are.
        view: of which images.
        key: what stands in each shard.
    """

    def __init__(self, store: TargetStore, folder: str, column: Column, view: View, key: Mapping[str, Any]) -> None:
        self._store = store
        self._folder = folder
        self._column = column
        self._view = view
        self._key = key
        self._waiting: list[list[Tensor]] = []
        self._num_waiting = 0
        self._rows_per_shard = 0
        self._part = 0

    def add(self, target: Mapping[str, Tensor]) -> None:
        """Take the next rows.

        Raises:
            StoreRangeError: a value is too large for half precision.
            OSError: the shard cannot be written.
        """
        tensors = [self._narrow(target[layer]) for layer in self._column.layers]
        if not self._rows_per_shard:
            self._rows_per_shard = self._plan(tensors)
        self._waiting.append(tensors)
        self._num_waiting += len(tensors[0])
        while self._num_waiting >= self._rows_per_shard:
            self._write(self._rows_per_shard)

    def close(self) -> None:
        """Write what is left."""
        if self._num_waiting:
            self._write(self._num_waiting)

    def _plan(self, tensors: Sequence[Tensor]) -> int:
        row_bytes = sum(tensor[0].numel() * tensor.element_size() for tensor in tensors)
        most = max(1, self._store.shard_bytes // max(1, row_bytes))
        self._num_parts = math.ceil(self._view.num_rows / most)
        return math.ceil(self._view.num_rows / self._num_parts)

    def _write(self, num_rows: int) -> None:
        together = [torch.cat(layer) for layer in zip(*self._waiting, strict=True)]
        stem = f"{self._view.digest[:32]}.{self._part:05d}-of-{self._num_parts:05d}"
        self._store.shards.put(self._folder, stem, encode([layer[:num_rows] for layer in together], self._key))
        self._part += 1
        self._num_waiting -= num_rows
        self._waiting = [[layer[num_rows:] for layer in together]] if self._num_waiting else []

    def _narrow(self, tensor: Tensor) -> Tensor:
        """Return a tensor on the CPU in the type in which it is stored; numpy has no bfloat16."""
        tensor = tensor.detach().cpu()
        if not tensor.is_floating_point():
            return tensor
        if self._store.precision == "exact":
            return tensor.float() if tensor.dtype == torch.bfloat16 else tensor
        narrow = tensor.half()
        if not torch.isfinite(narrow).all() and torch.isfinite(tensor).all():
            raise StoreRangeError(
                f"{self._column.name}: a target of {tensor.abs().max().item():.3g} exceeds the range of float16 "
                "(65504); use store: exact"
            )
        return narrow


def _by_part(names: Sequence[str], view: View) -> dict[int, list[list[str]]]:
    """Return the names of a view's shards: by number of parts, for each part the files that hold it."""
    found: dict[int, list[list[str]]] = {}
    for name in names:
        match = _SHARD.fullmatch(name)
        if match is not None and match["view"] == view.digest[:32]:
            part, parts = int(match["part"]), int(match["parts"])
            if part < parts:
                found.setdefault(parts, [[] for _ in range(parts)])[part].append(name)
    return {parts: files for parts, files in found.items() if all(files)}
