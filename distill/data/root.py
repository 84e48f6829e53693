"""Where the data lie: the option ``root`` and the environment variable that stands in for it."""

from __future__ import annotations

import os
import re
from pathlib import Path
from urllib.parse import unquote, urlsplit

from distill.data.roots import LocalRoot, RemoteRoot, Root
from distill.uri import is_uri

VARIABLE = "DISTILLERY_DATA"

_REFERENCE = re.compile(r"\$(?:(\w+)|\{([^}]*)\})")


def resolve_root(root: str | None) -> Root:
    """Return the folder that ``root`` names; environment variables and ``~`` in it are expanded.

    Args:
        root: the option, a path or a URI; ``None``: what ``DISTILLERY_DATA`` names.

    Raises:
        ValueError: neither is set, a variable in ``root`` is not set, or ``root`` is no folder that can be read.
    """
    location = _expand(root)
    if not is_uri(location):
        return LocalRoot(Path(location).expanduser().absolute())
    parts = urlsplit(location)
    if parts.scheme.lower() != "file":
        return RemoteRoot(location)
    if parts.netloc not in ("", "localhost"):
        raise ValueError(f"root must be file:/// and an absolute path, found {location!r}")
    return LocalRoot(Path(unquote(parts.path)))


def _expand(root: str | None) -> str:
    if root is None:
        root = os.environ.get(VARIABLE, "")
        if not root:
            raise ValueError(
                f"root must name the folder that holds the data, by path or URI (or set the environment variable "
                f"{VARIABLE}); found neither"
            )
    for match in _REFERENCE.finditer(root):
        name = match.group(1) or match.group(2)
        if not os.environ.get(name):
            raise ValueError(f"root must name environment variables that are set, found {root!r} with {name} unset")
    return os.path.expandvars(root)
