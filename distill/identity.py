"""What an object computes, as a digest: its class, its options, and the source code behind them."""

from __future__ import annotations

import dataclasses
import hashlib
import inspect
import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

_OWN_TO_TORCH = frozenset(vars(nn.Module())) | {"training"}
"""Attributes that every module has; they say nothing of what it computes."""


class UnidentifiedError(ValueError):
    """An object holds something whose meaning cannot be told from outside, such as a function."""


def digest(value: Any) -> str:
    """Return the SHA-256 (hexadecimal) of plain data: equal data, equal digest, on any machine."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


def state_digest(module: nn.Module) -> str:
    """Return the SHA-256 of a module's structure, parameters and buffers: names, types, shapes and values."""
    content = hashlib.sha256(f"{_name(type(module))}\n{module!r}".encode())
    for name, value in module.state_dict().items():
        content.update(f"{name} {value.dtype} {list(value.shape)}\n".encode())
        content.update(_bytes(value))
    return content.hexdigest()


def describe(thing: Any, options: Sequence[str] | None = None, *, kind: type | None = None) -> dict[str, Any]:
    """Return as plain data what an object computes.

    Args:
        thing: an object whose attributes are plain data, tensors, or objects of that kind.
        options: the attributes that count; ``None``: all of them, but for those that every ``nn.Module`` has.
        kind: the class above the object's own that answers for it; ``None``: its own.

    Returns:
        The name of its class, the digest of the source files of its class and the classes above it, and its options.

    Raises:
        UnidentifiedError: an attribute is none of the above.
    """
    attributes, kind = vars(thing), kind or type(thing)
    names = attributes.keys() - _OWN_TO_TORCH if options is None else options
    values = {name: plain(attributes[name], f"{_name(kind)}.{name}") for name in sorted(names)}
    return {"class": _name(kind), "code": code_digest(kind), "options": values}


def code_digest(kind: type) -> str:
    """Return the SHA-256 of the source files of a class and those above it, but for the standard library's and torch's.

    A change of the code is a change of what is computed, as far as anyone can tell from outside.

    Raises:
        UnidentifiedError: a class has no source file, as in an interactive session.
    """
    homes = {base.__module__ for base in kind.__mro__ if base.__module__.partition(".")[0] not in _OTHERS}
    return digest({home: _file_digest(home) for home in sorted(homes)})


_OTHERS = frozenset({"builtins", "abc", "typing", "torch", "collections", "torchvision"})
"""Packages whose release says what they compute; the release is part of every stored key."""


@cache
def _file_digest(module: str) -> str:
    try:
        return hashlib.sha256(Path(inspect.getfile(sys.modules[module])).read_bytes()).hexdigest()
    except (KeyError, TypeError, OSError) as error:
        raise UnidentifiedError(f"the source of module {module} cannot be read") from error


def plain(value: Any, owner: str = "value") -> Any:
    """Return an attribute as plain data.

    Raises:
        UnidentifiedError: it is neither plain data, nor a tensor, nor an object made of such.
    """
    if value is None or isinstance(value, bool | int | float | str):
        return value if not isinstance(value, float) else repr(value)
    if isinstance(value, Tensor | np.ndarray):
        tensor = torch.as_tensor(value)
        return [str(tensor.dtype), list(tensor.shape), hashlib.sha256(_bytes(tensor)).hexdigest()]
    if isinstance(value, Mapping):
        return [[plain(key, owner), plain(item, owner)] for key, item in value.items()]
    if isinstance(value, list | tuple | set | frozenset):
        return _items(value, owner)
    if isinstance(value, torch.dtype | torch.device):
        return str(value)
    if isinstance(value, nn.Module):
        return [repr(value), state_digest(value), code_digest(type(value))]
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return [_name(type(value)), plain(vars(value), owner)]
    if hasattr(value, "__dict__") and not callable(value):
        return describe(value)
    raise UnidentifiedError(f"{owner} is a {type(value).__name__}, which cannot be told from another one")


def _items(values: Iterable[Any], owner: str) -> list[Any]:
    items = [plain(value, owner) for value in values]
    return sorted(items, key=digest) if isinstance(values, set | frozenset) else items


def _name(kind: type) -> str:
    return f"{kind.__module__}.{kind.__qualname__}"


def _bytes(tensor: Tensor) -> bytes:
    flat = tensor.detach().cpu().contiguous().reshape(-1)
    return flat.view(torch.uint8).numpy().tobytes() if flat.numel() else b""
