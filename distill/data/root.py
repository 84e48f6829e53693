"""Where the data lie: the option ``root`` and the environment variable that stands in for it."""

from __future__ import annotations

import os
import re
from pathlib import Path

VARIABLE = "DISTILLERY_DATA"

_REFERENCE = re.compile(r"\$(?:(\w+)|\{([^}]*)\})")


def resolve_root(root: str | None) -> Path:
    """Return the folder that ``root`` names; environment variables and ``~`` in it are expanded.

    Args:
        root: the option; ``None``: the folder that ``DISTILLERY_DATA`` names.

    Raises:
        ValueError: neither is set, a variable in ``root`` is not set, or ``root`` is no folder of this machine.
    """
    if root is None:
        root = os.environ.get(VARIABLE, "")
        if not root:
            raise ValueError(
                f"root must name the folder that holds the data (or set the environment variable {VARIABLE}); "
                "found neither"
            )
    for match in _REFERENCE.finditer(root):
        name = match.group(1) or match.group(2)
        if not os.environ.get(name):
            raise ValueError(f"root must name environment variables that are set, found {root!r} with {name} unset")
    if "://" in root:
        raise ValueError(f"root must be a folder that this machine can read, found the URI {root!r}; mount or copy it")
    path = Path(os.path.expandvars(root)).expanduser().absolute()
    if not path.is_dir():
        raise ValueError(f"root must be an existing folder, found {path}")
    return path
