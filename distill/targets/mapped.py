"""The stored answers to some questions for one view, mapped into memory."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt
from torch import Tensor

from distill.targets.shard import Rows, take


class MappedTargets:
    """Gives targets by position in the split, a batch at a time.

    Args:
        shards: by column and layer, the arrays of its shards, in order.
        rows_per_shard: by column.
    """

    def __init__(self, shards: Mapping[str, Mapping[str, Sequence[Rows]]], rows_per_shard: Mapping[str, int]) -> None:
        self._shards = shards
        self._rows_per_shard = rows_per_shard

    def read(self, positions: npt.NDArray[np.int64]) -> dict[str, dict[str, Tensor]]:
        """Return ``[position, ...]`` a layer, by column and layer; copies, on the CPU."""
        return {
            column: {layer: take(arrays, self._rows_per_shard[column], positions) for layer, arrays in layers.items()}
            for column, layers in self._shards.items()
        }
