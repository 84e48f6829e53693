"""Who sees which image: the result of a split."""

from __future__ import annotations

from dataclasses import dataclass

from distill.data.source import Indices


@dataclass(frozen=True, eq=False)
class Partition:
    """Positions in the source, ascending, by use.

    Attributes:
        train: what the student trains on.
        teacher_train: what the teacher trains on.
        validation: what ranks, stops and attributes; ``None`` under protocol ``paper``.
        test: what is evaluated once a finished run.
    """

    train: Indices
    teacher_train: Indices
    validation: Indices | None
    test: Indices
