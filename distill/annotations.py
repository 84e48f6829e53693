"""One value of plain data against one annotation."""

from __future__ import annotations

import enum
import inspect
import numbers
import pathlib
import re
import types
import typing
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence, Set
from dataclasses import is_dataclass
from typing import Annotated, Any, Literal, Union

from distill.schema import Fit, Fitted, Problem, fit_options, found, nearest

Leaf = Callable[[Any, Any], Fitted | None]
"""Judges values of annotations that only the caller knows, such as a nested object; ``None``: not mine."""

Rule = Callable[[Any], str]
"""A bound on a value, as metadata of ``Annotated``; returns the rule that is broken, or nothing."""


def fit(value: Any, annotation: Any, leaf: Leaf | None = None) -> Fitted:
    """Judge a value of plain data against an annotation, and bring it into the annotated form.

    A whole number passes for a float and becomes one; a bool never passes for a number; a list becomes a tuple, a text
    a path or an enumeration's member, a mapping a dataclass, where the annotation says so.

    Args:
        value: plain data: what a YAML or JSON file can hold.
        annotation: a type, a union, ``Literal``, ``Annotated`` with rules, a container, a dataclass, ``Any``.
        leaf: asked first, for annotations of the caller's own.
    """

    def again(inner: Any, inner_annotation: Any) -> Fitted:
        return fit(inner, inner_annotation, leaf)

    special = leaf(value, annotation) if leaf else None
    if special is not None:
        return special
    if annotation is Any:
        return value, []
    origin = typing.get_origin(annotation)
    if origin is Annotated:
        return _ruled(value, annotation, again)
    if origin is Literal:
        return _literal(value, typing.get_args(annotation))
    if origin in (Union, types.UnionType):
        return _union(value, annotation, leaf)
    kind = origin or annotation
    if kind in SCALARS:
        return _scalar(value, kind)
    if not inspect.isclass(kind):
        return _impossible(annotation)
    if issubclass(kind, Mapping):
        return _mapping(value, typing.get_args(annotation), again)
    if issubclass(kind, tuple):
        return _tuple(value, typing.get_args(annotation), again)
    if kind in LISTS:
        return _list(value, typing.get_args(annotation), again)
    if is_dataclass(kind):
        return _dataclass(value, kind, again)
    if issubclass(kind, enum.Enum):
        return _member(value, kind)
    return (value, []) if isinstance(value, kind) else _impossible(annotation)


LISTS = (list, Sequence, Iterable, Collection, set, frozenset, Set)
SCALARS: Mapping[Any, tuple[str, Callable[[Any], bool], Callable[[Any], Any]]] = {
    types.NoneType: ("null", lambda value: value is None, lambda value: value),
    None: ("null", lambda value: value is None, lambda value: value),
    bool: ("true or false", lambda value: isinstance(value, bool), bool),
    int: ("a whole number", lambda value: isinstance(value, int) and not isinstance(value, bool), int),
    float: ("a number", lambda value: isinstance(value, int | float) and not isinstance(value, bool), float),
    numbers.Number: ("a number", lambda value: isinstance(value, int | float) and not isinstance(value, bool), float),
    str: ("text", lambda value: isinstance(value, str), str),
    pathlib.Path: ("a file's path", lambda value: isinstance(value, str | pathlib.Path), pathlib.Path),
}
"""Name in messages, test and conversion of each scalar type."""


def describe(annotation: Any) -> str:
    """Say in a reader's words what an annotation wants."""
    origin = typing.get_origin(annotation)
    kind = origin or annotation
    if origin is Annotated:
        return describe(typing.get_args(annotation)[0])
    if origin is Literal:
        return " or ".join(repr(choice) for choice in typing.get_args(annotation))
    if origin in (Union, types.UnionType):
        return " or ".join(dict.fromkeys(describe(inner) for inner in _alternatives(annotation)))
    if kind in SCALARS:
        return SCALARS[kind][0]
    if kind is tuple or kind in LISTS:
        inner = [arg for arg in typing.get_args(annotation)[:1] if arg is not Any]
        return f"a list (of {_several(inner[0])})" if inner else "a list"
    if kind is dict or kind is Mapping or is_dataclass(kind):
        return "a mapping"
    return f"a {getattr(kind, '__name__', str(annotation))}"


def _several(annotation: Any) -> str:
    """Say what an annotation wants of the items of a list: ``text``, ``modifiers`` for Modifier."""
    kind = typing.get_origin(annotation) or annotation
    if not inspect.isclass(kind) or kind in SCALARS or _is_plain(kind):
        return describe(annotation)
    return re.sub(r"(?<=[a-z])(?=[A-Z])", " ", kind.__name__).lower() + "s"


def _wrong(value: Any, annotation: Any, advice: str = "") -> Fitted:
    return value, [Problem("", f"must be {describe(annotation)}, found {found(value)}{advice}")]


def _impossible(annotation: Any) -> Fitted:
    return None, [Problem("", f"wants {describe(annotation)}, which a file cannot give")]


def _scalar(value: Any, kind: Any) -> Fitted:
    _, passes, convert = SCALARS[kind]
    if passes(value):
        return convert(value), []
    word = str(value).lower()
    if kind is bool and word in ("yes", "on", "y", "no", "off", "n"):
        return _wrong(value, kind, f"; write {'true' if word in ('yes', 'on', 'y') else 'false'}")
    return _wrong(value, kind)


def _literal(value: Any, choices: Sequence[Any]) -> Fitted:
    if any(value == choice and type(value) is type(choice) for choice in choices):
        return value, []
    _, problems = _wrong(value, Literal[tuple(choices)])
    close = nearest(str(value), [choice for choice in choices if isinstance(choice, str)])
    return value, [Problem("", f"{problems[0].message}.", close)] if close else problems


def _alternatives(annotation: Any) -> list[Any]:
    """Return a union's members, whole numbers before numbers: ``5000`` for ``float | int`` stays a count."""
    return sorted(typing.get_args(annotation), key=lambda kind: kind is float)


def _union(value: Any, annotation: Any, leaf: Leaf | None) -> Fitted:
    """Take the first member that fits; otherwise report inside the member that the value was evidently meant for.

    A misspelt word is reported with all that is valid beside it.
    """
    results = {member: fit(value, member, leaf) for member in _alternatives(annotation)}
    for result in results.values():
        if not result[1]:
            return result
    members = [member for member in results if _is_plain(member) or (leaf and leaf(value, member) is not None)]
    meant = [member for member in members if _is_meant(value, member, leaf)]
    if meant:
        return results[meant[0]]
    _, problems = _wrong(value, Union[tuple(members or results)])  # noqa: UP007  # made at run time
    close = next((problem.nearest for member in members for problem in results[member][1] if problem.nearest), "")
    return value, [Problem("", f"{problems[0].message}.", close)] if close else problems


def _is_meant(value: Any, annotation: Any, leaf: Leaf | None) -> bool:
    """Whether a value that does not fit is of the annotation's kind all the same, and only its content is wrong."""
    kind = typing.get_origin(annotation) or annotation
    if kind is Annotated:
        inner = typing.get_args(annotation)[0]
        return _is_meant(value, inner, leaf) or not fit(value, inner, leaf)[1]
    is_list = kind in LISTS or (inspect.isclass(kind) and issubclass(kind, tuple))
    is_scalar = kind in SCALARS or kind is Literal or (inspect.isclass(kind) and issubclass(kind, enum.Enum))
    if isinstance(value, list | tuple):
        return is_list
    return isinstance(value, Mapping) and not is_scalar and not is_list


def _is_plain(annotation: Any) -> bool:
    """Whether a file can hold a value of this annotation."""
    kind = typing.get_origin(annotation) or annotation
    if kind in SCALARS or kind in LISTS or kind in (Annotated, Literal, Any):
        return True
    return inspect.isclass(kind) and (issubclass(kind, Mapping | tuple | enum.Enum) or is_dataclass(kind))


def _ruled(value: Any, annotation: Any, again: Fit) -> Fitted:
    inner, *rules = typing.get_args(annotation)
    fitted, problems = again(value, inner)
    broken = [] if problems else [rule(fitted) for rule in rules]
    return fitted, problems + [Problem("", f"{text}, found {found(fitted)}") for text in broken if text]


def _list(value: Any, args: Sequence[Any], again: Fit) -> Fitted:
    inner = args[0] if args else Any
    if not isinstance(value, list | tuple):
        is_item = bool(args) and inner is not Any and not again(value, inner)[1]
        return _wrong(value, types.GenericAlias(list, (inner,)), "; put it in a list" if is_item else "")
    results = [again(item, inner) for item in value]
    return [fitted for fitted, _ in results], _numbered(results)


def _tuple(value: Any, args: Sequence[Any], again: Fit) -> Fitted:
    if not isinstance(value, list | tuple):
        return _wrong(value, types.GenericAlias(tuple, tuple(args[:1])))
    if not args or args[-1] is Ellipsis:
        fitted, problems = _list(value, args, again)
        return tuple(fitted), problems
    if len(value) != len(args):
        return value, [Problem("", f"must be a list of {len(args)} values, found {len(value)}")]
    results = [again(item, inner) for item, inner in zip(value, args, strict=True)]
    return tuple(fitted for fitted, _ in results), _numbered(results)


def _numbered(results: Sequence[Fitted]) -> list[Problem]:
    return [problem.under(str(number)) for number, (_, problems) in enumerate(results) for problem in problems]


def _mapping(value: Any, args: Sequence[Any], again: Fit) -> Fitted:
    if not isinstance(value, Mapping):
        return _wrong(value, dict)
    key_kind, value_kind = args or (Any, Any)
    fitted: dict[Any, Any] = {}
    problems: list[Problem] = []
    for key, item in value.items():
        _, key_problems = again(key, key_kind)
        fitted[key], item_problems = again(item, value_kind)
        problems += [problem.under(str(key)) for problem in [*key_problems, *item_problems]]
    return fitted, problems


def _dataclass(value: Any, kind: type, again: Fit) -> Fitted:
    if isinstance(value, kind):
        return value, []
    options, problems = fit_options(value, kind, again, owner="this section", noun="key")
    if problems:
        return value, problems
    try:
        return kind(**options), []
    except ValueError as error:
        return value, [rejection(error, options)]


def rejection(error: Exception, options: Mapping[str, Any]) -> Problem:
    """Return a constructor's complaint as a problem of the option that it begins with, or whose value it shows.

    A message that does neither is about the whole.
    """
    message = str(error) or type(error).__name__
    about = named_first(message, options)
    if about is not None:
        return about
    words = re.split(r"[\s:,()=]+", message)
    shown = [name for name, value in options.items() if not isinstance(value, bool) and str(value) in words]
    return Problem(shown[0] if len(shown) == 1 else "", message)


def named_first(message: str, options: Collection[str]) -> Problem | None:
    """Return a complaint as a problem of the option that it begins with; ``None``: it begins with none of these."""
    named = NAMED_FIRST.match(message)
    parts = re.split(r"[.\[\]]+", named[0].rstrip("]")) if named else []
    while parts and parts[0] not in options:
        parts.pop(0)
    return Problem(".".join(parts), message[named.end() :].lstrip(" :")) if named and parts else None


NAMED_FIRST = re.compile(r"[A-Za-z_]\w*(\.\w+|\[\d+\])*(?![\w(])")
"""An option at the head of a message, such as ``temperature`` or ``augment[0]``."""


def _member(value: Any, kind: type[enum.Enum]) -> Fitted:
    for member in kind:
        if value in (member, member.value, member.name):
            return member, []
    return _literal(value, [member.value for member in kind])
