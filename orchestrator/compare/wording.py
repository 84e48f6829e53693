"""Numbers as text."""

from __future__ import annotations

from orchestrator.compare.estimate import Estimate


def signed(value: float, decimals: int) -> str:
    """Return ``+1.93``; a value that rounds to zero keeps no minus."""
    text = f"{value:+.{decimals}f}"
    return text.replace("-", "+") if float(text) == 0 else text


def mean_sd(mean: float | None, sd: float | None, decimals: int, *, between: str = "+-") -> str:
    """Return ``84.13 +- 0.42``, without the deviation where there is none."""
    if mean is None:
        return ""
    if sd is None:
        return f"{mean:.{decimals}f}"
    return f"{mean:.{decimals}f} {between} {sd:.{decimals}f}"


def with_interval(estimate: Estimate | None, decimals: int) -> str:
    """Return ``+1.93 [+1.21, +2.64]``, without the interval where there is none."""
    if estimate is None:
        return ""
    text = signed(estimate.difference, decimals)
    interval = estimate.interval
    if interval is None:
        return text
    return f"{text} [{signed(interval[0], decimals)}, {signed(interval[1], decimals)}]"


def listed(names: list[str], *, otherwise: str = "none") -> str:
    """Return ``a, b``, or ``otherwise`` for an empty list."""
    return ", ".join(names) or otherwise


def counted(number: int, noun: str) -> str:
    """Return ``1 seed`` or ``3 seeds``."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
