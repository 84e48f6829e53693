"""Where a training's targets come from, path by path: from the store, or from the teacher itself."""

from __future__ import annotations

from collections.abc import Collection

import torch
from torch import Tensor

from distill.batch import Batch
from distill.data import Loader
from distill.distiller import Distiller
from distill.evaluate import ask_for_answers
from distill.paths import Target
from distill.targets.column import ANSWER, ANSWERS, answer_column, path_column
from distill.targets.mapped import MappedTargets
from distill.targets.stored import StoredTargets
from distill.teacher import Teacher


class TargetSource:
    """Answers for the teacher of a training.

    Args:
        distiller: whose paths need targets; on its device.
        teacher: ``None`` for a student trained alone without one to agree with.
        stored: reads the store; ``None``: the teacher is asked for every batch.
        stored_paths: the paths whose targets are stored; the others ask the teacher.

    Raises:
        ValueError: a path declares that its target cannot be stored, or what it depends on cannot be told.
    """

    def __init__(
        self,
        distiller: Distiller,
        teacher: Teacher | None,
        stored: StoredTargets | None = None,
        stored_paths: Collection[str] = (),
    ) -> None:
        self._distiller = distiller
        self._teacher = teacher
        self._stored = stored
        names = [name for name in distiller.layers if name in stored_paths] if stored is not None else []
        self._columns = [path_column(name, distiller.path(name)) for name in names]

    def open(self, loader: Loader, epoch: int) -> MappedTargets | None:
        """Return what reads the stored targets of an epoch, for :meth:`Loader.epoch`; ``None`` where nothing is stored.

        All ranks call it together.
        """
        if self._stored is None or not self._columns:
            return None
        return self._stored.open(self._columns, loader, epoch, precision=self._distiller.precision)

    def targets(self, batch: Batch) -> dict[str, Target]:
        """Return the targets of all paths: those that the batch brought along, and the teacher's answers for the rest.

        The teacher is asked once, however many paths there are, no deeper than they need, and not at all where nothing
        is left to ask.
        """
        brought = dict(batch.targets)
        lacking = [name for name in self._distiller.layers if name not in brought]
        if self._teacher is None or not lacking:
            return brought
        precision = self._distiller.precision
        with torch.autocast(batch.images.device.type, torch.bfloat16, enabled=precision == "bfloat16"):
            taps = self._teacher(batch.images, only=self._distiller.teacher_taps(lacking))
        return brought | self._distiller.targets(taps, lacking)

    def answers(self, loader: Loader | None) -> list[Tensor] | None:
        """Return what the teacher says of each batch of a split in its own order, see ``Task.answer``; on the CPU.

        Returns:
            ``None`` without a teacher or a split, or where the task compares no answers.
        """
        if self._teacher is None or loader is None:
            return None
        mapped = None
        if self._stored is not None and self._distiller.task.compares_answers:
            mapped = self._stored.open([answer_column(self._distiller.task)], loader, 0, precision="float32")
        if mapped is None:
            return ask_for_answers(self._teacher, loader)
        return [mapped.read(positions)[ANSWERS][ANSWER] for positions in loader.shares(0)]
