"""Plain data against signatures and annotations: the one place where the name and the type of an option are judged.

A constructor, a factory or a dataclass is a schema as it stands: its parameters are the options, its annotations their
types, a parameter without default is required. Nothing here imports torch.
"""

from __future__ import annotations

import collections.abc
import difflib
import inspect
import typing
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

REQUIRED = inspect.Parameter.empty
"""The default of an option that has none."""


@dataclass(frozen=True)
class Problem:
    """One mistake in plain data.

    Attributes:
        key: dotted key of the value at fault, relative to what was checked; list items by index; empty for the whole.
        message: the rule, the finding, and what is valid.
        nearest: the valid name that was probably meant; empty where none is near.
    """

    key: str
    message: str
    nearest: str = ""

    def under(self, prefix: str) -> Problem:
        """Return the same problem as seen from the parent that holds the value as ``prefix``."""
        return replace(self, key=join(prefix, self.key))

    def __str__(self) -> str:
        text = f"{self.key}: {self.message}" if self.key else self.message
        return f"{text}{suggestion(self.nearest)}"


Fitted = tuple[Any, list[Problem]]
"""A value as its annotation wants it, and what is wrong with it; with problems the value means nothing."""

Fit = Callable[[Any, Any], Fitted]
"""Judges a value against an annotation; :func:`distill.annotations.fit` is the usual one."""


@dataclass(frozen=True)
class Option:
    """One parameter of a signature; ``default`` is ``REQUIRED`` where there is none."""

    name: str
    annotation: Any
    default: Any = REQUIRED


@dataclass(frozen=True)
class Schema:
    """The options that a class or a function takes.

    Attributes:
        options: by name, in order.
        is_open: whether it takes any further option (``**kwargs`` that lead nowhere).
        refused: names of those that the constructor passes on to a base and refuses all the same, as the class says
            by ``refused_options``: they can be given, to hear why, but are not offered.
    """

    options: Mapping[str, Option]
    is_open: bool = False
    refused: tuple[str, ...] = ()

    def shown(self, hidden: Collection[str] = ()) -> list[Option]:
        """Return the options that are offered, without the ``hidden`` ones."""
        return [option for name, option in self.options.items() if name not in (*hidden, *self.refused)]

    def accepts(self, name: str) -> bool:
        """Whether an option of this name may be given."""
        return self.is_open or name in self.options


def join(prefix: str, key: str) -> str:
    """Return ``prefix.key``, leaving out what is empty."""
    return ".".join(part for part in (prefix, key) if part)


def nearest(name: str, names: Iterable[str]) -> str:
    """Return the valid name that ``name`` was probably meant to be, or the empty string."""
    candidates = {candidate.lower(): candidate for candidate in names}
    close = difflib.get_close_matches(name.lower(), candidates, n=1)
    containing = [candidate for candidate in candidates if len(name) > 2 and name.lower() in candidate]
    return next((candidates[candidate] for candidate in [*close, *containing]), "")


def suggestion(name: str) -> str:
    """Return the closing question of a message, or nothing."""
    return f" Did you mean '{name}'?" if name else ""


@cache
def schema(target: Callable[..., Any]) -> Schema:
    """Read the options of a class or a function off its signature.

    ``**kwargs`` are followed to where they go: from a function to the class it returns, from a constructor to the next
    one in the method resolution order. So a torchvision builder shows the options of its model class; of those, only
    the ones with a default are taken, because the builder fills in the others. A function stays open to any option
    where its ``**kwargs`` lead to nothing that names options.
    """
    options: dict[str, Option] = {}
    refused: tuple[str, ...] = getattr(target, "refused_options", ())
    for position, function in enumerate(_chain(target)):
        hints = _hints(function)
        parameters = list(inspect.signature(function).parameters.values())
        for parameter in parameters:
            named = parameter.kind in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY)
            reachable = position == 0 or parameter.default is not REQUIRED
            if named and parameter.name != "self" and reachable:
                option = Option(parameter.name, hints.get(parameter.name, Any), parameter.default)
                options.setdefault(parameter.name, option)
        if not any(parameter.kind == parameter.VAR_KEYWORD for parameter in parameters):
            return Schema(options, refused=refused)
    own = 0 if inspect.isclass(target) else len(inspect.signature(target).parameters)
    return Schema(options, is_open=not inspect.isclass(target) and len(options) < own, refused=refused)


def _chain(target: Callable[..., Any]) -> Iterable[Callable[..., Any]]:
    """Yield the functions that keyword arguments of ``target`` reach, as long as each passes its ``**kwargs`` on."""
    if inspect.isclass(target):
        yield from (vars(base)["__init__"] for base in target.__mro__[:-1] if "__init__" in vars(base))
        return
    yield target
    returned = return_type(target)
    if inspect.isclass(returned):
        yield from _chain(returned)


def return_type(function: Callable[..., Any]) -> Any:
    """Return what a function is annotated to return, or ``None``."""
    return _hints(function).get("return")


def _hints(function: Callable[..., Any]) -> dict[str, Any]:
    """Return a function's annotations, evaluated one by one; what cannot be evaluated counts as ``Any``.

    A module that imports for type checkers only leaves names undefined; those of ``collections.abc`` are supplied.
    """
    function = inspect.unwrap(function)
    known = getattr(function, "__globals__", {})
    supplied = {name: getattr(collections.abc, name) for name in collections.abc.__all__ if name not in known}
    hints: dict[str, Any] = {}
    for name, annotation in getattr(function, "__annotations__", {}).items():
        holder = type("Annotations", (), {"__annotations__": {name: annotation}})
        try:
            hints |= typing.get_type_hints(holder, globalns=known, localns=supplied, include_extras=True)
        except (NameError, AttributeError, TypeError):
            hints[name] = Any
    return hints


def fit_options(
    values: Any,
    target: Callable[..., Any],
    fit: Fit,
    *,
    owner: str,
    noun: str = "option",
    given: Collection[str] = (),
    reserved: Mapping[str, str] | None = None,
) -> tuple[dict[str, Any], list[Problem]]:
    """Judge a mapping as the options of ``target``.

    Args:
        values: the options as written.
        target: a class, a function or a dataclass.
        fit: judges one value against one annotation.
        owner: what has these options, as messages shall call it.
        noun: what an option is called there.
        given: options that the program gives itself, so they are not missing.
        reserved: options that the file must not give, and why.

    Returns:
        The options as the annotations want them, and all problems.
    """
    if not isinstance(values, Mapping):
        return {}, [Problem("", f"{owner} must be a mapping, found {found(values)}")]
    known = schema(target)
    reserved = reserved or {}
    fitted: dict[str, Any] = {}
    problems: list[Problem] = []
    for name, value in values.items():
        if name in reserved:
            problems.append(Problem(name, f"{owner} cannot be given '{name}' here: {reserved[name]}"))
        elif name in known.options:
            fitted[name], found_problems = fit(value, known.options[name].annotation)
            problems += [problem.under(name) for problem in found_problems]
        elif known.is_open:
            fitted[name] = value
        else:
            problems.append(_unknown(name, known, owner, noun, reserved, preset_of(target)))
    # A misspelt name is one mistake, not a missing one besides.
    accounted = {*values, *given, *(problem.nearest for problem in problems if "." not in problem.key)}
    required = [option.name for option in known.options.values() if option.default is REQUIRED]
    missing = [name for name in required if name not in accounted]
    problems += [Problem("", f"{owner} needs the {noun} '{name}'; {_takes(known, reserved)}") for name in missing]
    return fitted, problems


def preset_of(function: Callable[..., Any]) -> type | None:
    """Return the class that a function makes with some of its options fixed; ``None`` for a class."""
    returned = return_type(function) if inspect.isfunction(function) else None
    return returned if inspect.isclass(returned) else None


def _unknown(
    name: str, known: Schema, owner: str, noun: str, reserved: Mapping[str, str], preset: type | None
) -> Problem:
    if preset is not None and name in schema(preset).options:
        whole = f"it is a preset of {preset.__name__}, which has; {_takes(known, reserved)}"
        return Problem(name, f"{owner} has no {noun} '{name}': {whole}")
    names = [option.name for option in known.shown(reserved)]
    close = nearest(name, names) or (names[0] if len(names) == 1 else "")
    return Problem(name, f"{owner} has no {noun} '{name}'; {_takes(known, reserved)}.", close)


def _takes(known: Schema, reserved: Mapping[str, str]) -> str:
    shown = [describe_option(option) for option in known.shown(reserved)]
    return f"it takes {', '.join(shown) or 'none'}"


def describe_option(option: Option) -> str:
    """Return ``name``, or ``name = default`` where the default can be written."""
    return f"{option.name} = {written(option.default)}" if is_plain(option.default) else option.name


def written(value: Any) -> str:
    """Return plain data as YAML writes it on one line."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(written, value))}]"
    return repr(value)


def is_plain(default: Any) -> bool:
    """Whether a default can stand in a file; what is required, and functions, cannot."""
    if isinstance(default, list | tuple):
        return all(is_plain(item) for item in default)
    return default is None or isinstance(default, bool | int | float | str)


def found(value: Any) -> str:
    """Say in a reader's words what was found in place of something else."""
    if value is None:
        return "nothing (null)"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        return f"the text '{value}'"
    if isinstance(value, Mapping):
        return "a mapping"
    if isinstance(value, list | tuple):
        return "a list"
    return str(value)
