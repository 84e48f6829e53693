"""The weights of an earlier run as the schedule of this one."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Unpack

import pyarrow as pa
import pyarrow.parquet as pq
import torch
from torch import Tensor

from distill.aggregators.base import Aggregate, Aggregator, Common, Losses
from distill.aggregators.names import meant
from distill.aggregators.with_task import sum_of_weighed

_ENDING = "/weight"
_TASK = "task_weight"


@dataclass(frozen=True)
class _Record:
    """What a run left of its weights.

    Attributes:
        progress: ``[row]``, increasing.
        weights: ``[row]`` by name of the path or layer.
        task_weight: ``[row]``; ``None`` where the task's loss had no weight of its own.
    """

    progress: Tensor
    weights: dict[str, Tensor]
    task_weight: Tensor | None


class Replay(Aggregator):
    """Gives each path the weight that it had at the same point of an earlier run.

    With the rows ``p_0 < p_1 < ...`` of the record and ``v_i`` its weights::

        weight_i = v_i(p_k) + (v_i(p_(k + 1)) - v_i(p_k)) * (progress - p_k) / (p_(k + 1) - p_k)
        total    = L_task + sum of weight_i * L_i

    where the task's loss has the weight that it had in the record, if it had one of its own.
    Before the first row and after the last one the weights stand still. What was found by a search, learned with
    another student or on less data is so tried as a mere schedule, which no loss of this run changes; replayed from
    another seed, it tells whether weights had to react or just to move. The record holds weights with
    ``alpha_distill`` and modifiers in them: those of that run are not to be given again. It is read when the aggregator
    is made, on every rank; a checkpoint holds its content, which then is what counts, and does not go with a record of
    another number of rows. The length of the two runs may differ, the names of their paths may not. A layer that was
    its path's only one has the path's weight; a path whose layers had weights of their own has the mean of these, by
    loss. Costs the file in memory, one number a row and key, and no pass.

    Source: ours; the searched schedule that is followed by a full training is that of DistPro (Deng et al. 2022,
    arXiv:2204.05547).

    Args:
        file: the Parquet file with the run's trajectory, see :class:`~distill.trajectory.Trajectory`; on a cluster,
            where every node can read it.

    Raises:
        ValueError: the file cannot be read, or is no record of weights; ``granularity`` is a mapping of groups; at
            ``connect``: the record has no weight for a path or layer.
    """

    _progress: Tensor  # [row]
    _weights: Tensor  # [row, key], or [row, 1 + key] with the task's first

    def __init__(self, file: str, **common: Unpack[Common]) -> None:
        super().__init__(**common)
        if not isinstance(self.granularity, str):
            raise ValueError("granularity of Replay must be 'path' or 'layer', for a record has no weights of groups")
        self.file = file
        self._record = _read(file)
        self.weighs_task = self._record.task_weight is not None

    def allocate(self, num_keys: int) -> None:
        found = {key: self._column(key) for key in self.keys}
        missing = [key for key in self.keys if not found[key]]
        if missing:
            raise ValueError(
                f"file must hold the weight of every {self.granularity}; {self.file} has none of: "
                f"{', '.join(missing)}; it has those of: {', '.join(self._record.weights) or 'none'}"
                f"{meant(missing, self._record.weights)}"
            )
        task = [] if self._record.task_weight is None else [self._record.task_weight]
        columns = task + [self._record.weights[column] for column in found.values()]
        rows = self._record.progress
        self.register_buffer("_progress", rows.clone())
        self.register_buffer("_weights", torch.stack(columns, dim=1) if columns else rows.new_zeros(len(rows), 0))

    def forward(self, losses: Losses) -> Aggregate:
        # In float32, as the rows were rounded: at the progress of a row the weight is that of the row.
        done = torch.as_tensor(losses.progress, dtype=torch.float32, device=self._progress.device).to(self._progress)
        passed = (self._progress <= done).sum()
        around = torch.stack([passed - 1, passed]).clamp(0, len(self._progress) - 1)
        before, after = self._progress.index_select(0, around).unbind()
        first, second = self._weights.index_select(0, around).unbind()
        gap = after - before
        share = (done - before) / gap.masked_fill(gap == 0, 1)  # without a gap both rows are the same
        return sum_of_weighed(losses, torch.lerp(first, second, share), alpha_distill=1.0)

    def _column(self, key: str) -> str:
        """Return the name under which the record has the weight of ``key``; empty where it has none."""
        names = self._record.weights
        if key in names or self.granularity == "path":
            return key if key in names else ""
        # A path of one layer has no columns for its layer.
        for path in names:
            start = f"{path}."
            alone = sum(each.startswith(start) for each in self.keys) == 1
            if key.startswith(start) and alone and not any(name.startswith(start) for name in names):
                return path
        return ""


def _read(file: str) -> _Record:
    """Return the weights that a run's trajectory holds.

    Raises:
        ValueError: the file cannot be read, has no steps, or holds what cannot be followed.
    """
    try:
        names = pq.read_schema(file).names
        columns = [name for name in names if name in ("progress", _TASK) or name.endswith(_ENDING)]
        table = pq.read_table(Path(file), columns=columns, partitioning=None, page_checksum_verification=True)
        values = {name: torch.tensor(table[name].cast(pa.float64()).to_numpy()) for name in columns}
    except (OSError, pa.ArrowException) as error:
        raise ValueError(f"file must be the Parquet file of a trajectory; cannot read {file}: {error}") from error
    if "progress" not in columns:
        raise ValueError(f"file must be the Parquet file of a trajectory; {file} has no column 'progress'")
    bad = [name for name, column in values.items() if not column.float().isfinite().all()]
    progress, task = values.pop("progress"), values.pop(_TASK, None)
    if bad:
        raise ValueError(f"file must hold finite numbers alone; {file} has others in {', '.join(bad)}")
    if not len(progress):
        raise ValueError(f"file must hold at least one step, found none in {file}")
    if not (progress.diff() > 0).all():
        raise ValueError(f"file must hold steps in the order of their progress; in {file} it falls or stands still")
    weights = {name.removesuffix(_ENDING): column.float() for name, column in values.items()}
    return _Record(progress.float(), weights, None if task is None else task.float())
