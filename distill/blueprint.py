"""A checked ``{use: NAME, **options}``, ready to be made once the program's own part is known."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import singledispatch
from pathlib import Path
from typing import Any

from distill.annotations import named_first, rejection
from distill.schema import Problem, is_plain, join, schema


class RejectedError(ValueError):
    """A constructor refused its options; ``problem`` says which one, as seen from the blueprint."""

    def __init__(self, problem: Problem) -> None:
        super().__init__(str(problem))
        self.problem = problem


@dataclass(frozen=True)
class Blueprint:
    """A class or function and its options; nested objects are blueprints themselves.

    Attributes:
        name: as the file spells it.
        target: what makes the object.
        options: checked and converted.
        defaults: those of the options that the file could have given and did not.
        attached: attributes that the object gets when it is made.
        settled: options that are the program's own business.
    """

    name: str
    target: Callable[..., Any]
    options: Mapping[str, Any]
    defaults: Mapping[str, Any] = field(default_factory=dict)
    attached: Mapping[str, Any] = field(default_factory=dict)
    settled: Mapping[str, Any] = field(default_factory=dict)

    def make(self, **provided: Any) -> Any:
        """Make the object.

        Args:
            provided: what the program knows, such as ``num_classes``; the target gets what its signature names and the
                file leaves open, and so do nested objects.

        Raises:
            RejectedError: the constructor, or that of a nested object, refuses an option.
        """
        options = {name: _make(value, provided, name) for name, value in self.options.items()}
        accepts = schema(self.target).accepts
        offered = {name: value for name, value in provided.items() if name not in options and accepts(name)}
        try:
            made = self.target(**{**self.settled, **options, **offered})
        except (TypeError, ValueError) as error:
            # What the file leaves at its default may be what does not go with the rest of it.
            problem = named_first(str(error), {**self.defaults, **self.options}) or rejection(error, self.options)
            raise RejectedError(problem) from error
        for name, value in self.attached.items():
            setattr(made, name, value)
        return made

    def plain(self) -> dict[str, Any]:
        """Return ``{use: NAME, **options}`` as plain data, defaults filled in where they are plain."""
        defaults = {name: value for name, value in self.defaults.items() if is_plain(value)}
        given = defaults | dict(self.options) | dict(self.attached)
        return {"use": self.name} | {name: _plain(value) for name, value in given.items()}


@singledispatch
def _make(value: Any, provided: Mapping[str, Any], key: str) -> Any:
    """Return an option with the blueprints in it made."""
    return value


@_make.register
def _(value: Blueprint, provided: Mapping[str, Any], key: str) -> Any:
    try:
        return value.make(**provided)
    except RejectedError as error:
        raise RejectedError(error.problem.under(key)) from error


@_make.register
def _(value: list, provided: Mapping[str, Any], key: str) -> Any:  # type: ignore[type-arg]
    return [_make(item, provided, join(key, str(number))) for number, item in enumerate(value)]


@_make.register
def _(value: tuple, provided: Mapping[str, Any], key: str) -> Any:  # type: ignore[type-arg]
    return tuple(_make(item, provided, join(key, str(number))) for number, item in enumerate(value))


@singledispatch
def _plain(value: Any) -> Any:
    """Return an option as JSON knows it."""
    return dataclasses.asdict(value) if dataclasses.is_dataclass(value) and not isinstance(value, type) else value


@_plain.register
def _(value: Blueprint) -> Any:
    return value.plain()


@_plain.register(list)
@_plain.register(tuple)
def _(value: Any) -> Any:
    return [_plain(item) for item in value]


@_plain.register
def _(value: Mapping) -> Any:  # type: ignore[type-arg]
    return {str(key): _plain(item) for key, item in value.items()}


@_plain.register
def _(value: Path) -> Any:
    return str(value)
