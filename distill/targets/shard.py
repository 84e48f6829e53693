"""One shard: some rows of a column for a view, as an Arrow IPC file that carries its own key."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import torch
from torch import Tensor

_KEY = b"distillery"
_FORMAT = 1

Rows = npt.NDArray[Any]


class ShardError(ValueError):
    """A shard is damaged, or not the one that was asked for."""


def encode(tensors: Sequence[Tensor], key: Mapping[str, Any]) -> bytes:
    """Return the bytes of an Arrow IPC file with one column a tensor and one row a sample.

    Args:
        tensors: ``[row, ...]`` each, of a floating or whole type that numpy has.
        key: plain data, kept in the schema: what the shard is an answer to.
    """
    arrays = [np.ascontiguousarray(tensor.detach().cpu().numpy()) for tensor in tensors]
    columns = []
    for array in arrays:
        width = math.prod(array.shape[1:])
        columns.append(pa.FixedSizeListArray.from_arrays(pa.array(array.reshape(-1)), width))
    note = {"format": _FORMAT, "key": key, "shapes": [list(array.shape[1:]) for array in arrays]}
    names = [str(number) for number in range(len(arrays))]
    fields = [pa.field(name, column.type, nullable=False) for name, column in zip(names, columns, strict=True)]
    schema = pa.schema(fields, metadata={_KEY: json.dumps(note, sort_keys=True).encode()})
    sink = pa.BufferOutputStream()
    with pa.ipc.new_file(sink, schema) as writer:
        writer.write_batch(pa.record_batch(columns, schema=schema))
    content: bytes = sink.getvalue().to_pybytes()
    return content


def decode(path: Path, key: Mapping[str, Any]) -> list[Rows]:
    """Map a shard into memory; nothing is copied.

    Args:
        path: of a file that is never changed and whose bytes were checked: a truncated file kills whoever reads it.
        key: what the shard must be an answer to.

    Returns:
        One read-only array a layer, ``[row, ...]``.

    Raises:
        ShardError: it is no such file, or answers another question.
    """
    try:
        with pa.memory_map(str(path)) as source:
            reader = pa.ipc.open_file(source)
            note = json.loads(reader.schema.metadata[_KEY])
            if note["format"] != _FORMAT or note["key"] != json.loads(json.dumps(key)):
                raise ShardError(f"{path.name} answers another question than the one that was asked")
            batch = reader.get_batch(0)
            return [
                column.flatten().to_numpy(zero_copy_only=True).reshape(batch.num_rows, *shape)
                for column, shape in zip(batch.columns, note["shapes"], strict=True)
            ]
    except (pa.ArrowException, KeyError, TypeError, IndexError, json.JSONDecodeError) as error:
        raise ShardError(f"{path.name} is no shard: {error}") from error


def take(arrays: Sequence[Rows], rows_per_array: int, rows: npt.NDArray[np.int64]) -> Tensor:
    """Gather rows that lie in several arrays, ``rows_per_array`` in each but the last; return ``[row, ...]``."""
    if len(arrays) == 1:
        return torch.from_numpy(arrays[0][rows])
    gathered = np.empty((len(rows), *arrays[0].shape[1:]), dtype=arrays[0].dtype)
    parts, offsets = np.divmod(rows, rows_per_array)
    for part in np.unique(parts):
        chosen = parts == part
        gathered[chosen] = arrays[part][offsets[chosen]]
    return torch.from_numpy(gathered)
