"""An experiment file as plain data that remembers where each key was written."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from distill.schema import Problem, join
from orchestrator.config.errors import Mistake, UserError
from orchestrator.config.reading import read

COMMAND_LINE = ""
"""The origin of a value that was given on the command line."""


@dataclass(frozen=True)
class Document:
    """A file, and what has been set in it since.

    Attributes:
        path: the file, as messages shall name it.
        data: plain data.
        lines: the line of each key in the file.
        origins: for every key set since: the key of the file that the value comes from, or ``COMMAND_LINE``.
    """

    path: str
    data: Mapping[str, Any]
    lines: Mapping[str, int] = field(default_factory=dict)
    origins: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def load(cls, path: str | Path) -> Document:
        """Read a file.

        Raises:
            UserError: there is no such file, or it is no YAML mapping.
        """
        try:
            text = Path(path).read_text(encoding="utf-8")
        except UnicodeDecodeError as error:
            raise UserError([f"{path}: not UTF-8 text: {error.reason} at byte {error.start}"]) from None
        except OSError as error:
            raise UserError([f"{path}: cannot be read: {error.strerror}"]) from None
        return cls.parse(text, str(path))

    @classmethod
    def parse(cls, text: str, path: str) -> Document:
        """Read a text.

        Raises:
            UserError: it is no YAML mapping.
        """
        reading = read(text)
        if reading.findings:
            found = sorted(reading.findings, key=lambda finding: finding.line)
            raise UserError([Mistake(f"{path}:{item.line}", item.key, item.message) for item in found])
        if not isinstance(reading.data, dict):
            raise UserError([f"{path}: an experiment file is a mapping of sections (data, student, train, ...)"])
        return cls(path, reading.data, reading.lines)

    @property
    def name(self) -> str:
        """The file's name without its folder."""
        return Path(self.path).name

    def get(self, key: str) -> Any:
        """Return the value at a dotted key.

        Raises:
            KeyError: there is none.
        """
        value: Any = self.data
        for step in self._steps(key):
            try:
                value = value[step]
            except (KeyError, IndexError, TypeError):
                raise KeyError(key) from None
        return value

    def has(self, key: str) -> bool:
        """Whether there is a value at a dotted key."""
        try:
            self.get(key)
        except KeyError:
            return False
        return True

    def with_value(
        self, key: str, value: Any, *, origin: str = COMMAND_LINE, steps: Sequence[str | int] | None = None
    ) -> Document:
        """Return a document with one value set; sections on the way to it are made.

        Args:
            key: dotted key; items of lists by index.
            value: plain data.
            origin: the key of the file that the value comes from.
            steps: how the key is divided, where the data do not say so yet.

        Raises:
            KeyError: the key leads through what is no section, or past the end of a list; the message says where.
        """
        data = _with(self.data, list(steps or self._steps(key)), value, "")
        return replace(self, data=data, origins={**self.origins, key: origin})

    def without(self, key: str) -> Document:
        """Return a document without one top-level key."""
        return replace(self, data={name: value for name, value in self.data.items() if name != key})

    def mistakes(self, problems: Iterable[Problem]) -> list[Mistake]:
        """Return problems with the places where they can be corrected."""
        return [self._mistake(problem) for problem in problems]

    def error(self, problems: Iterable[Problem]) -> UserError:
        """Return problems as the error to raise."""
        return UserError.about(self.mistakes(problems))

    def _mistake(self, problem: Problem) -> Mistake:
        key, is_typed = self._origin(problem.key)
        sibling = join(problem.key.rpartition(".")[0], problem.nearest)
        present = self.get(sibling) if problem.nearest and self.has(sibling) else None
        shown = "" if present is None or isinstance(present, dict | list) else str(present)
        where = "command line" if is_typed else self._where(key)
        return Mistake(where, key, problem.message, problem.nearest, shown)

    def _origin(self, key: str) -> tuple[str, bool]:
        """Return the key under which the value was written, and whether that was on the command line."""
        for prefix in _prefixes(key):
            if prefix not in self.origins:
                continue
            origin = self.origins[prefix]
            if origin == COMMAND_LINE:
                return key, True
            moved = join(origin, key[len(prefix) :].lstrip("."))
            return self._origin(moved) if moved != key else (key, False)
        return key, False

    def _where(self, key: str) -> str:
        line = next((self.lines[prefix] for prefix in _prefixes(key) if prefix in self.lines), None)
        return f"{self.path}:{line}" if line else self.path

    def _steps(self, key: str) -> list[str | int]:
        """Split a dotted key along the data; names that hold dots themselves (under ``search``) are found."""
        steps: list[str | int] = []
        value: Any = self.data
        rest = key.split(".") if key else []
        while rest:
            length = 1
            if isinstance(value, Mapping):
                length = next((n for n in range(len(rest), 0, -1) if ".".join(rest[:n]) in value), 1)
            step: str | int = ".".join(rest[:length])
            if isinstance(value, list) and str(step).isdigit():
                step = int(step)
            steps.append(step)
            value = _child(value, step)
            rest = rest[length:]
        return steps


def _child(value: Any, step: str | int) -> Any:
    try:
        return value[step]
    except (KeyError, IndexError, TypeError):
        return None


def _prefixes(key: str) -> list[str]:
    """Return the key and all keys above it, longest first."""
    parts = key.split(".")
    return [".".join(parts[:length]) for length in range(len(parts), 0, -1)]


def _with(value: Any, steps: list[str | int], new: Any, done: str) -> Any:
    """Return a copy of ``value`` in which ``new`` stands at ``steps``."""
    if not steps:
        return new
    step, *rest = steps
    here = join(done, str(step))
    if isinstance(value, list):
        if not isinstance(step, int) or step >= len(value):
            raise KeyError(f"{done} is a list of {len(value)}; its items are 0 to {len(value) - 1}, found '{step}'")
        return [_with(item, rest, new, here) if number == step else item for number, item in enumerate(value)]
    if value is None:
        value = {}
    if not isinstance(value, Mapping):
        raise KeyError(f"{done} is {value!r}, not a section, so it has no '{step}'")
    return {**value, str(step): _with(value.get(str(step)), rest, new, here)}
