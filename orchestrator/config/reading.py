"""YAML to plain data, with the lines of all keys and with PyYAML's traps closed.

Scalars follow YAML 1.2, whatever PyYAML would make of them:

- ``1e-3`` and ``1E5`` are numbers (PyYAML: text); ``12:30`` is text (750); ``2024-01-01`` is text (a date);
- only ``true`` and ``false`` are booleans; ``yes``, ``no``, ``on``, ``off`` are text, and an option that wants a
  boolean says so;
- ``010``, ``0o10``, ``0x1F`` are refused: YAML 1.1 and 1.2 read different numbers; so are ``.nan`` and ``.inf``;
- a key that stands twice is an error (PyYAML: the later wins silently); so are keys that are no text, and tags.

Anchors, aliases and ``<<`` work.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import yaml

from distill.schema import join

MAX_VALUES = 100_000
"""Aliases of aliases can make a small file endless."""
_PREFIX = "tag:yaml.org,2002:"
_AMBIGUOUS = "!ambiguous"


class _Loader(yaml.SafeLoader):
    """Composes nodes under the resolvers below; nothing is ever constructed from a tag."""

    yaml_implicit_resolvers: dict[str, list[tuple[str, re.Pattern[str]]]] = {}  # noqa: RUF012  # PyYAML's own name


for _tag, _pattern, _first in (
    (f"{_PREFIX}bool", r"(?:true|True|TRUE|false|False|FALSE)", "tTfF"),
    (f"{_PREFIX}null", r"(?:~|null|Null|NULL|)", ["~", "n", "N", ""]),
    (f"{_PREFIX}int", r"[-+]?(?:0|[1-9][0-9_]*)", "-+0123456789"),
    (
        f"{_PREFIX}float",
        r"[-+]?(?:(?:0|[1-9][0-9_]*)?\.[0-9]+(?:[eE][-+]?[0-9]+)?"
        r"|(?:0|[1-9][0-9_]*)\.?(?:[eE][-+]?[0-9]+)|(?:0|[1-9][0-9_]*)\.|\.(?:inf|Inf|INF|nan|NaN|NAN))",
        "-+.0123456789",
    ),
    (_AMBIGUOUS, r"[-+]?0(?:[0-9_]+|[xXoObB][0-9A-Fa-f_]+)", "-+0"),
    (f"{_PREFIX}merge", r"<<", "<"),
):
    _Loader.add_implicit_resolver(_tag, re.compile(rf"^(?:{_pattern})$"), list(_first))


@dataclass(frozen=True)
class Finding:
    """Something wrong in the text itself; ``line`` counts from 1."""

    line: int
    key: str
    message: str


@dataclass
class Reading:
    """What a text holds.

    Attributes:
        data: plain data.
        lines: the line of every key and list item, by dotted key.
        findings: what is wrong; with findings, the data mean nothing.
    """

    data: Any = None
    lines: dict[str, int] = field(default_factory=dict)
    findings: list[Finding] = field(default_factory=list)


def read(text: str) -> Reading:
    """Read one YAML document."""
    try:
        loader = _Loader(text)
        node = loader.get_single_node()
        converter = _Converter(loader)
        if node is not None:
            converter.reading.data = converter.convert(node, "")
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        return Reading(findings=[Finding(mark.line + 1 if mark else 1, "", _syntax(error))])
    except yaml.YAMLError as error:
        return Reading(findings=[Finding(1, "", f"not YAML: {error}".replace("\n", " "))])
    except RecursionError:
        return Reading(findings=[Finding(1, "", "nested too deeply")])
    return converter.reading


def _syntax(error: yaml.MarkedYAMLError) -> str:
    problem = str(error.problem)
    if "'\\t'" in problem:
        return "a tab; YAML indents by spaces only"
    context = f" ({error.context})" if error.context else ""
    return f"not YAML: {problem}{context}"


class _Converter:
    """Turns composed nodes into plain data and notes lines and findings on the way."""

    def __init__(self, loader: _Loader) -> None:
        self.reading = Reading()
        self._loader = loader
        self._open: set[int] = set()
        self._num_values = 0
        self._conversions: dict[str, Callable[[Any, str], Any]] = {
            "map": self._mapping,
            "seq": self._sequence,
            "float": self._float,
            "int": self._int,
            "bool": lambda node, key: str(node.value).lower() == "true",
            "null": lambda node, key: None,
            "str": lambda node, key: str(node.value),
        }

    def convert(self, node: yaml.Node, key: str) -> Any:
        """Return the node's data; ``key`` is where it stands."""
        self._num_values += 1
        if id(node) in self._open:
            return self._refuse(node, key, "an alias that contains itself")
        if self._num_values > MAX_VALUES:
            if self._num_values == MAX_VALUES + 1:
                self._refuse(node, key, f"more than {MAX_VALUES} values")
            return None
        if node.tag == _AMBIGUOUS:
            message = f"{node.value} is read as different numbers by YAML 1.1 and 1.2; {_plainly(node.value)}"
            return self._refuse(node, key, message)
        convert = self._conversions.get(node.tag.removeprefix(_PREFIX))
        if convert is None:
            tag = node.tag.replace(_PREFIX, "!!")
            return self._refuse(node, key, f"the tag {tag} is not read here; plain data only")
        self._open.add(id(node))
        try:
            return convert(node, key)
        finally:
            self._open.discard(id(node))

    def _mapping(self, node: yaml.MappingNode, key: str) -> dict[str, Any]:
        own = [(name, value) for name, value in node.value if name.tag != f"{_PREFIX}merge"]
        first_lines: dict[str, int] = {}
        for name, _ in own:
            line = name.start_mark.line + 1
            if name.tag != f"{_PREFIX}str":
                self._refuse(name, key, f"the key {getattr(name, 'value', '')!s} is no text; quote it")
            elif name.value in first_lines:
                message = f"this key stands twice, in lines {first_lines[name.value]} and {line}"
                self._refuse(name, join(key, name.value), message)
            first_lines.setdefault(str(name.value), line)
        try:
            self._loader.flatten_mapping(node)
        except yaml.MarkedYAMLError as error:
            self._refuse(node, key, _syntax(error))
            return {}
        data: dict[str, Any] = {}
        for name, value in node.value:
            where = join(key, str(name.value))
            self.reading.lines[where] = name.start_mark.line + 1
            data[str(name.value)] = self.convert(value, where)
        return data

    def _sequence(self, node: yaml.SequenceNode, key: str) -> list[Any]:
        data = []
        for number, item in enumerate(node.value):
            where = join(key, str(number))
            self.reading.lines[where] = item.start_mark.line + 1
            data.append(self.convert(item, where))
        return data

    def _float(self, node: yaml.ScalarNode, key: str) -> Any:
        try:
            value = float(node.value.replace("_", ""))
        except ValueError:
            value = math.nan
        if not math.isfinite(value):
            return self._refuse(node, key, f"{node.value} is no finite number")
        return value

    def _int(self, node: yaml.ScalarNode, key: str) -> Any:
        try:
            return int(node.value.replace("_", ""))
        except ValueError:
            return self._refuse(node, key, f"{node.value} is no whole number")

    def _refuse(self, node: yaml.Node, key: str, message: str) -> None:
        self.reading.findings.append(Finding(node.start_mark.line + 1, key, message))


def _plainly(number: str) -> str:
    digits = number.lstrip("+-0_")
    if digits and not digits.isdigit():
        return "write it in decimal"
    return f"write {digits or '0'}, or quote it if it is text"
