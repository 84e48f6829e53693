"""What is wrong with a user's file or command line, said once and for all of it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from distill.schema import suggestion


@dataclass(frozen=True)
class Mistake:
    """One mistake, and where to correct it.

    Attributes:
        where: ``experiment.yaml:12``, or ``command line``.
        key: dotted key, list items by index.
        message: the rule and the finding.
        nearest: the valid name that was probably meant.
        present: the value that the key of this name has now, where it has one.
    """

    where: str
    key: str
    message: str
    nearest: str = ""
    present: str = ""

    def __str__(self) -> str:
        question = suggestion(self.nearest)
        if self.present:
            question = question.removesuffix("?") + f" (now {self.present})?"
        return ": ".join(part for part in (self.where, self.key, self.message) if part) + question

    @property
    def order(self) -> tuple[int, str]:
        """What sorts mistakes as a reader meets them: the command line's, then the file's by line."""
        line = self.where.rpartition(":")[2]
        return (int(line) if line.isdigit() else 0, self.key)

    def plain(self) -> dict[str, Any]:
        """Return the mistake for ``--json``."""
        file, _, line = self.where.rpartition(":")
        known = line.isdigit()
        return {
            "file": file if known else self.where,
            "line": int(line) if known else None,
            "key": self.key,
            "message": self.message,
            "nearest": self.nearest or None,
        }


class UserError(Exception):
    """The user's file or command line is wrong: printed line by line, exit status 2, no traceback.

    Args:
        problems: mistakes, or free text for what no file holds (a name in use, a missing package).
    """

    def __init__(self, problems: Sequence[Mistake | str]) -> None:
        super().__init__("\n".join(map(str, problems)))
        self.mistakes = [Mistake("", "", problem) if isinstance(problem, str) else problem for problem in problems]

    @classmethod
    def about(cls, mistakes: Iterable[Mistake]) -> UserError:
        """Return the error for some mistakes: each once, in the order in which a reader meets them."""
        distinct: list[Mistake] = list(dict.fromkeys(mistakes))
        distinct.sort(key=lambda mistake: mistake.order)
        return cls(distinct)
