"""Targets from the store; what is not there is asked of the teacher once, and then it is there."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch import Tensor

from distill import distributed
from distill.data import Loader
from distill.distiller import Precision
from distill.targets.column import Column
from distill.targets.mapped import MappedTargets
from distill.targets.numerics import Numerics
from distill.targets.store import StoreRangeError, TargetStore
from distill.targets.view import View
from distill.teacher import Teacher

log = logging.getLogger(__name__)


class StoredTargets:
    """What a training reads instead of asking its teacher.

    Args:
        store: of this teacher.
        teacher: asked for what the store lacks; its taps must be watched by then.
        data_fingerprint: of the data set.
    """

    def __init__(self, store: TargetStore, teacher: Teacher, data_fingerprint: str) -> None:
        self._store = store
        self._teacher = teacher
        self._data_fingerprint = data_fingerprint
        self.num_asked = 0
        """Images for which the teacher was asked."""

    def open(
        self, columns: Sequence[Column], loader: Loader, epoch: int, *, precision: Precision
    ) -> MappedTargets | None:
        """Return the answers for how ``loader`` shows its images in ``epoch``; all ranks call this together.

        Rank 0 asks the teacher for what is missing or damaged.

        Args:
            columns: the questions.
            loader: of the split.
            epoch: counted from 0.
            precision: ``bfloat16`` asks under autocast.

        Returns:
            ``None`` where they can neither be read nor written, which a warning has then said: ask the teacher.
        """
        if not columns:
            return None
        mapped = self._mapped(columns, loader, epoch, precision)
        if distributed.any_rank(mapped is None, loader.device):
            if distributed.rank() == 0:
                self._try_to_fill(columns, loader, epoch, precision)
            distributed.barrier()
            mapped = self._mapped(columns, loader, epoch, precision)
        return None if distributed.any_rank(mapped is None, loader.device) else mapped

    def fill(self, columns: Sequence[Column], loader: Loader, epoch: int, *, precision: Precision) -> None:
        """Ask the teacher for a view and store its answers, as far as they are not there already.

        Raises:
            StoreRangeError: a target exceeds what half precision can hold.
            OSError: the store cannot be written.
        """
        view, numerics = self._asked(loader, epoch, precision)
        # Paths that need the very same target share it.
        different = {column.digest: column for column in columns}.values()
        lacking = [column for column in different if self._store.find(column, view, numerics) is None]
        if not lacking:
            return
        writers = [(column, self._store.writer(column, view, numerics)) for column in lacking]
        taps = frozenset[str]().union(*(column.taps for column in lacking))
        for num_new, answers in self._answers(taps, loader, epoch, precision):
            for column, writer in writers:
                writer.add({layer: value[:num_new] for layer, value in column.compute(answers).items()})
            self.num_asked += num_new
        for _, writer in writers:
            writer.close()

    @torch.no_grad()
    def _answers(
        self, taps: frozenset[str], loader: Loader, epoch: int, precision: Precision
    ) -> Iterator[tuple[int, dict[str, Tensor]]]:
        """Ask for all images in batches of one size, since the size decides the last bits: the last wraps around."""
        batch_rows, num_rows = loader.batch_size // loader.world_size, len(loader.subset)
        for start in range(0, num_rows, batch_rows):
            positions = np.arange(start, start + batch_rows, dtype=np.int64) % num_rows
            batch = loader.batch_at(positions, epoch)
            with torch.autocast(loader.device.type, torch.bfloat16, enabled=precision == "bfloat16"):
                answers = self._teacher(batch.images, only=taps)
            yield min(batch_rows, num_rows - start), answers

    def _try_to_fill(self, columns: Sequence[Column], loader: Loader, epoch: int, precision: Precision) -> None:
        try:
            self.fill(columns, loader, epoch, precision=precision)
        except (OSError, StoreRangeError) as error:
            log.warning("the target store cannot keep what the teacher says (%s): it is asked for every batch", error)

    def _mapped(
        self, columns: Sequence[Column], loader: Loader, epoch: int, precision: Precision
    ) -> MappedTargets | None:
        view, numerics = self._asked(loader, epoch, precision)
        shards = {column.name: self._store.find(column, view, numerics) for column in columns}
        found = {name: layers for name, layers in shards.items() if layers is not None}
        if len(found) < len(columns):
            return None
        return MappedTargets(found, {name: len(next(iter(layers.values()))[0]) for name, layers in found.items()})

    def _asked(self, loader: Loader, epoch: int, precision: Precision) -> tuple[View, Numerics]:
        return View.of(loader, epoch, self._data_fingerprint), Numerics.of(loader, precision)
