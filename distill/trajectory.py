"""The full-resolution record of losses and weights of one run, kept as Parquet."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq


class Trajectory:
    """Rows of ``step``, ``epoch``, ``progress``, and the loss, weight and weighted loss of every path and layer.

    Columns: ``task/loss``, ``total/loss``, ``task_weight`` where the task's loss has a weight of its own, and for each
    path ``<path>/loss`` (the sum over its layers), ``<path>/weighted`` and ``<path>/weight`` (their quotient: under
    layer granularity the mean weight, by loss). A path of several layers adds ``<path>.<layer>/loss|weight|weighted``.
    Where gradients were looked at there are ``<path>/cosine``, with the task's gradient, and ``<path>/gradient``, the
    length in units of the task's; in rows without a look they are null.

    Args:
        layers: the layer names of each path, by path name.
    """

    def __init__(self, layers: Mapping[str, Sequence[str]]) -> None:
        self.layers = {path: tuple(names) for path, names in layers.items()}
        self._rows: list[dict[str, float]] = []

    def __len__(self) -> int:
        return len(self._rows)

    @property
    def last(self) -> dict[str, float]:
        """The newest row."""
        return self._rows[-1]

    def append(
        self,
        *,
        step: int,
        epoch: int,
        progress: float,
        total: float,
        task: float,
        losses: Sequence[float],
        weights: Sequence[float],
        task_weight: float | None = None,
        gradients: Mapping[str, tuple[float, float]] | None = None,
    ) -> None:
        """Add one row.

        Args:
            step: optimiser steps made before this one.
            epoch: epoch number, from 1.
            progress: share of the training done before this step.
            total: the scalar that was descended.
            task: the supervised loss.
            losses: one value for each layer of each path, in the order of ``layers``.
            weights: by how much each counted.
            task_weight: by how much the task's loss counted; ``None``: as it is.
            gradients: cosine with the task's gradient and relative length of each path's, where there was a look.
        """
        row: dict[str, float] = {"step": step, "epoch": epoch, "progress": progress}
        row["total/loss"] = total
        row["task/loss"] = task
        if task_weight is not None:
            row["task_weight"] = task_weight
        position = 0
        for path, names in self.layers.items():
            share = slice(position, position + len(names))
            row |= _path_columns(path, names, losses[share], weights[share])
            position += len(names)
        for path, (cosine, length) in (gradients or {}).items():
            row |= {f"{path}/cosine": cosine, f"{path}/gradient": length}
        self._rows.append(row)

    def table(self) -> pa.Table:
        """Return all rows as an Arrow table; step and epoch are int64, the rest float64."""
        names = list(dict.fromkeys(name for row in self._rows for name in row)) or ["step", "epoch", "progress"]
        kinds = {"step": pa.int64(), "epoch": pa.int64()}
        return pa.table(
            {name: pa.array([row.get(name) for row in self._rows], kinds.get(name, pa.float64())) for name in names}
        )

    def write(self, path: Path) -> None:
        """Write the rows as one Parquet file with page checksums."""
        pq.write_table(self.table(), path, write_page_checksum=True)

    def restore(self, path: Path) -> None:
        """Replace the rows by those of a file that :meth:`write` made.

        Raises:
            ValueError: the file records other paths than this run has.
        """
        rows = pq.read_table(path, page_checksum_verification=True).to_pylist()
        if rows and self.layers and not all(f"{name}/loss" in rows[0] for name in self.layers):
            raise ValueError(f"{path} records other paths than {', '.join(self.layers)}")
        self._rows = [{name: value for name, value in row.items() if value is not None} for row in rows]


def _path_columns(
    path: str, names: Sequence[str], losses: Sequence[float], weights: Sequence[float]
) -> dict[str, float]:
    weighted = [loss * weight for loss, weight in zip(losses, weights, strict=True)]
    loss = sum(losses)
    mean_weight = sum(weighted) / loss if loss else sum(weights) / len(weights)
    columns = {f"{path}/loss": loss, f"{path}/weight": mean_weight, f"{path}/weighted": sum(weighted)}
    if len(names) > 1:
        for name, *values in zip(names, losses, weights, weighted, strict=True):
            columns |= dict(
                zip((f"{path}.{name}/{what}" for what in ("loss", "weight", "weighted")), values, strict=True)
            )
    return columns
