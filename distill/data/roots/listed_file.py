"""A file of a data set, as a listing names it."""

from __future__ import annotations

from typing import NamedTuple


class ListedFile(NamedTuple):
    """A file of a data set, as a listing names it: a tuple, because there may be millions.

    Attributes:
        name: path below the root, with ``/``.
        size: in bytes.
        modified_ns: when it was last written, in nanoseconds since 1970; ``None`` where the file system does not say.
    """

    name: str
    size: int
    modified_ns: int | None = None
