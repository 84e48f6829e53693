"""What a checkpoint's files may hold: tensors and plain data that load without running code."""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

Content = Mapping[str, Any] | Callable[[Path], None]
"""A dict of tensors and plain data for ``torch.save``, or a function that writes a file to a path."""

_CONTAINERS = (dict, OrderedDict, Counter, list, tuple, set)
_PLAIN = (int, float, bool, str, bytes, complex, type(None), torch.Size, torch.dtype, torch.device)


def check_content(name: str, value: Any) -> None:
    """Check that ``weights_only=True`` will load a value: now, not when a run is to be resumed.

    Raises:
        ValueError: something in it would not load, such as a NumPy number; the message says where it is.
    """
    # exact types: numpy.float64 is a float, too
    if type(value) in (Tensor, nn.Parameter) or type(value) in _PLAIN:
        return
    if type(value) not in _CONTAINERS:
        raise ValueError(
            f"checkpoints hold tensors, numbers, strings and their containers, but {name} is "
            f"{type(value).__module__}.{type(value).__qualname__}"
        )
    for key, child in value.items() if isinstance(value, dict) else enumerate(value):
        check_content(f"key {key!r} of {name}", key)
        check_content(f"{name}[{key!r}]", child)


def write_content(path: Path, content: Content) -> None:
    """Write one file.

    Raises:
        ValueError: the function given as content wrote nothing.
        OSError, RuntimeError: the disk is full.
    """
    if callable(content):
        content(path)
        if not path.is_file():
            raise ValueError(f"what is given for {path.name} must write one file to that path, and wrote none")
        return
    # a Python file, for the reason of a failed write is lost when torch opens the path itself
    with path.open("wb") as file:
        torch.save(content, file)


def size_bytes(value: Any) -> int:
    """Return what the tensors in a value take."""
    if isinstance(value, Tensor):
        return value.numel() * value.element_size()
    if isinstance(value, dict):
        return sum(map(size_bytes, value.values()))
    return sum(map(size_bytes, value)) if isinstance(value, list | tuple) else 0
