"""The check of what users give by the names of what has a weight."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from distill.schema import nearest, suggestion


def check_names(option: str, noun: str, given: Collection[str], keys: Collection[str], *, kind: str = "path") -> None:
    """Refuse an option that does not name every key, or names anything else.

    Args:
        option: as the user writes it.
        noun: what it gives to each key, in the singular.
        given: the names in it.
        keys: the names of what has a weight of its own.
        kind: what the keys are, in the singular.

    Raises:
        ValueError: a key has none, or a name is no key's.
    """
    missing = [key for key in keys if key not in given]
    unknown = [name for name in given if name not in keys]
    if missing or unknown:
        findings = {f"{kind}s without a {noun}": missing, f"{noun}s without a {kind}": unknown}
        rule = f"{option} must name every {kind} and nothing else"
        raise ValueError(f"{rule}; {listed({**findings, f'{kind}s': list(keys) or ['none']})}{meant(unknown, keys)}")


def listed(findings: dict[str, Sequence[str]]) -> str:
    """Return ``paths in none: a, b; paths: a, b, c``, leaving out what is empty."""
    return "; ".join(f"{what}: {', '.join(names)}" for what, names in findings.items() if names)


def meant(unknown: Sequence[str], keys: Collection[str]) -> str:
    """Return the question after the first of some unknown names that is near a known one, behind a full stop."""
    close = next((name for name in (nearest(each, keys) for each in unknown) if name), "")
    return f".{suggestion(close)}" if close else ""
