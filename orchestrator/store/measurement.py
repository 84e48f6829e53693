"""What asking the teacher, keeping its answers and reading them cost: measured, where the runs will run."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from distill.host import Host
from distill.targets import path_column
from distill.targets.shards import LocalShards
from orchestrator.job import Job
from orchestrator.preparation import prepare

_TRIAL_BYTES = 16 * 2**20
_REPEATS = 3
_ROWS_ON_CPU = 32


@dataclass(frozen=True)
class Measurement:
    """What was measured for one group.

    Attributes:
        num_rows: images of the training split.
        num_other_rows: images of the validation and test splits.
        ask_seconds: for an image: the teacher's forward pass.
        write_seconds: for a byte: written, flushed and digested.
        read_seconds: for a byte: read and digested.
        row_bytes: by path, bytes of its target for an image, kept to the last bit.
        refusals: by path, why its target cannot be stored.
        answer_bytes: bytes of the teacher's answer for an image, which agreement is measured by.
        columns: by path, what its target is, where other paths may need the very same: the store keeps it once.
    """

    num_rows: int
    num_other_rows: int
    ask_seconds: float
    write_seconds: float
    read_seconds: float
    row_bytes: dict[str, int]
    refusals: dict[str, str]
    answer_bytes: int
    columns: dict[str, str] = field(default_factory=dict)

    def column(self, path: str) -> str:
        """Return what tells a path's target from those of the others."""
        return self.columns.get(path, path)

    def plain(self) -> dict[str, Any]:
        """Return plain data."""
        return asdict(self)


def measure(config: Mapping[str, Any], host: Host) -> dict[str, Any]:
    """Measure a group; the teacher's weights do not matter, so it need not be trained yet.

    Args:
        config: of the group.
        host: where it is measured.

    Returns:
        A :class:`Measurement` as plain data.
    """
    prepared = prepare(Job(config=untaught(config), config_hash="", directory="", role="trial"), host)
    loader = prepared.loaders.train
    assert prepared.teacher is not None
    rows = loader.batch_size if host.device.type == "cuda" else min(loader.batch_size, _ROWS_ON_CPU)
    batch = loader.batch_at(np.arange(rows, dtype=np.int64) % len(loader.subset), 0)
    answers = prepared.teacher(batch.images[:1])
    row_bytes, refusals, columns = {}, {}, {}
    for name in prepared.distiller.layers:
        try:
            column = path_column(name, prepared.distiller.path(name))
        except ValueError as error:
            refusals[name] = str(error).removeprefix(f"paths.{name}: ")
            continue
        target = column.compute(answers)
        columns[name] = column.digest
        row_bytes[name] = sum(value.numel() * value.element_size() for value in target.values())
    write_seconds, read_seconds = _disk_seconds()
    evaluation = [loader for loader in (prepared.loaders.validation, prepared.loaders.test) if loader is not None]
    teacher = prepared.teacher
    return Measurement(
        num_rows=len(loader.subset),
        num_other_rows=sum(len(each.subset) for each in evaluation),
        ask_seconds=_seconds(lambda: teacher(batch.images), host.device) / rows,
        write_seconds=write_seconds / _TRIAL_BYTES,
        read_seconds=read_seconds / _TRIAL_BYTES,
        row_bytes=row_bytes,
        refusals=refusals,
        answer_bytes=_size(prepared.distiller.task.answer(answers)),
        columns=columns,
    ).plain()


def _size(answer: Tensor | None) -> int:
    return 0 if answer is None else answer.numel() * answer.element_size()


def untaught(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return a configuration whose models need no weights."""
    fresh = {"weights": None, "checkpoint": None, "weights_backbone": None}
    return {**config, "student": {**config["student"], **fresh}, "teacher": {**config["teacher"], **fresh}}


def _seconds(work: Callable[[], Any], device: torch.device) -> float:
    """Return the least of some timings; the first call, which also prepares, does not count."""
    timings = []
    for _ in range(_REPEATS + 1):
        started = time.perf_counter()
        work()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        timings.append(time.perf_counter() - started)
    return min(timings[1:])


def _disk_seconds() -> tuple[float, float]:
    """Return how long it takes to write and to read one shard on this machine's disk."""
    content = np.random.default_rng(0).bytes(_TRIAL_BYTES)
    with tempfile.TemporaryDirectory(prefix="distillery-") as folder:
        shards = LocalShards(Path(folder))
        started = time.perf_counter()
        shards.put("trial", "stem", content)
        written = time.perf_counter()
        shards.get("trial", shards.names("trial")[0])
        return written - started, time.perf_counter() - written
