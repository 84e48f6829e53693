"""Short names for the values of a searched key."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any


def labels(values: Sequence[Any]) -> list[str]:
    """Return a name for each value, unique among them.

    ``{use: Adaptive}`` is ``Adaptive``; beside ``{use: Adaptive, granularity: layer}``, that one is
    ``Adaptive-layer``, named by what distinguishes it. A switch that does so is named itself, with ``no_`` before it
    where it is off. What modifies it is part of its name, whatever is beside it: ``Equal-CosineGate`` is no ``Equal``.
    A model section is named by its model.
    """
    heads = [_head(value) for value in values]
    counts = Counter(heads)
    named = [
        head
        if counts[head] == 1
        else _distinguished(value, [v for v, h in zip(values, heads, strict=True) if h == head])
        for value, head in zip(values, heads, strict=True)
    ]
    repeated = Counter(named)
    return [name if repeated[name] == 1 else f"{name}-{number}" for number, name in enumerate(named)]


def snake_case(name: str) -> str:
    """Return ``LogSum`` as ``log_sum``."""
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name).lower()


def scalar(value: Any) -> str:
    """Return a single value as a name: as YAML writes it, numbers in short."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    return f"{value:g}" if isinstance(value, float) else str(value)


def flat(value: Any, prefix: str = "") -> dict[str, Any]:
    """Return nested mappings and lists as one mapping of dotted keys to single values."""
    if isinstance(value, Mapping) and value:
        items = [(str(key), item) for key, item in value.items()]
    elif isinstance(value, list | tuple) and value:
        items = [(str(number), item) for number, item in enumerate(value)]
    else:
        return {prefix: value}
    return {
        key: item for name, inner in items for key, item in flat(inner, f"{prefix}.{name}" if prefix else name).items()
    }


def _head(value: Any) -> str:
    if isinstance(value, Mapping):
        name = value.get("use", value.get("model", ""))
        if isinstance(name, Mapping):
            return _head(name)
        modifiers = value.get("modifiers")
        parts = [str(name), *map(_head, modifiers)] if isinstance(modifiers, list | tuple) else [str(name)]
        return "-".join(part.rpartition(".")[2] for part in parts)
    if isinstance(value, list | tuple):
        return "+".join(_head(item) for item in value)
    return scalar(value)


def _distinguished(value: Any, rivals: Sequence[Any]) -> str:
    """Name a value by the options in which it differs from others of the same head; the plainest has none to show."""
    parts = [_head(value)]
    for key, item in _leaves(value).items():
        if any(_leaves(rival).get(key, _MISSING) != item for rival in rivals):
            parts.append(_option(key.rpartition(".")[2], item))
    return "-".join(parts)


def _option(name: str, value: Any) -> str:
    """Name an option by its value; a number or a list needs the option's name too, and of a switch that is all."""
    if isinstance(value, bool):
        return name if value else f"no_{name}"
    return f"{name}={_head(value) or 'none'}" if isinstance(value, int | float | list | tuple) else _head(value)


def _leaves(value: Any) -> dict[str, Any]:
    """Return :func:`flat` of a value, with lists of single values whole: the members of a group belong together."""
    if not isinstance(value, Mapping | list | tuple):
        return {"": value}
    leaves: dict[str, Any] = {}
    for key, item in value.items() if isinstance(value, Mapping) else enumerate(value):
        is_list = isinstance(item, list | tuple) and not any(isinstance(each, Mapping | list | tuple) for each in item)
        inner = {"": item} if is_list or not item else _leaves(item)
        leaves |= {f"{key}.{name}" if name else str(key): leaf for name, leaf in inner.items()}
    return leaves


_MISSING = object()
