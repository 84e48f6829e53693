"""The check of what users give by the names of paths."""

from __future__ import annotations

from collections.abc import Collection


def check_names(option: str, noun: str, given: Collection[str], keys: Collection[str]) -> None:
    """Refuse an option that does not name every path, or names anything else.

    Args:
        option: as the user writes it.
        noun: what it gives to each path, in the singular.
        given: the names in it.
        keys: the names of what has a weight of its own.

    Raises:
        ValueError: a path has none, or a name is no path's.
    """
    missing = [key for key in keys if key not in given]
    unknown = [name for name in given if name not in keys]
    if missing or unknown:
        raise ValueError(
            f"{option} must name every path and nothing else; "
            f"paths without a {noun}: {', '.join(missing) or 'none'}; "
            f"{noun}s without a path: {', '.join(unknown) or 'none'}; paths: {', '.join(keys) or 'none'}"
        )
