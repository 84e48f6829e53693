"""What is asked of the teacher, image by image: a column of the store."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from distill.identity import code_digest, digest
from distill.paths import Path, Taps
from distill.taps import OUTPUT
from distill.tasks import Task

ANSWERS = "answers"
ANSWER = "answer"
"""Names of the column, and of its one layer, that holds the teacher's answers."""


@dataclass(frozen=True, eq=False)
class Column:
    """A question to the teacher whose answer depends on the image alone.

    Attributes:
        name: what messages and readers call it.
        identity: plain data that tells it from every other question, whatever asks it.
        taps: the teacher's taps that it is computed from.
        layers: names of its tensors, in order.
        compute: from the taps to one tensor a layer, ``[batch, ...]``, without gradient.
    """

    name: str
    identity: dict[str, Any]
    taps: frozenset[str]
    layers: tuple[str, ...]
    compute: Callable[[Taps], dict[str, Tensor]] = field(repr=False)

    @property
    def digest(self) -> str:
        """SHA-256 of the identity."""
        return digest(self.identity)


def path_column(name: str, path: Path) -> Column:
    """Return the column of a connected path's target.

    Layers are known to the store by their order, since their names are those of the student's taps, which differ
    between students that ask the same.

    Raises:
        ValueError: the path says that its target cannot be stored.
        UnidentifiedError: what the target depends on cannot be told.
    """
    if not path.storable:
        raise ValueError(f"paths.{name}: {type(path).__name__} declares that its target cannot be stored")
    taps = [pair.teacher for pair in path.pairs]
    return Column(
        name=name,
        identity={**path.target_identity(), "taps": taps},
        taps=frozenset(taps),
        layers=path.layers,
        compute=path.target,
    )


def answer_column(task: Task) -> Column:
    """Return the column of the teacher's answers, against which a student's agreement is measured.

    Only for tasks that compare answers.
    """

    def compute(taps: Taps) -> dict[str, Tensor]:
        answer = task.answer(taps)
        assert answer is not None
        return {ANSWER: answer}

    return Column(
        name=ANSWERS,
        identity={"class": ANSWERS, "code": code_digest(type(task))},
        taps=frozenset({OUTPUT}),
        layers=(ANSWER,),
        compute=compute,
    )
