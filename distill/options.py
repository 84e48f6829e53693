"""Checks of the numbers that users give as options."""

from __future__ import annotations

import math


def finite(
    name: str,
    value: object,
    *,
    above: float | None = None,
    at_least: float | None = None,
    below: float | None = None,
) -> float:
    """Return the option ``value`` as a float.

    Args:
        name: the option, for the message.
        value: what the user gave.
        above: exclusive lower bound.
        at_least: inclusive lower bound.
        below: exclusive upper bound.

    Raises:
        ValueError: it is no finite number, or it is out of bounds.
    """
    rule = "a finite number"
    rule += f" above {above:g}" if above is not None else f" of at least {at_least:g}" if at_least is not None else ""
    rule += f" and below {below:g}" if below is not None else ""
    if not isinstance(value, int | float) or isinstance(value, bool) or not math.isfinite(value):
        raise ValueError(f"{name} must be {rule}, found {value!r}")
    too_small = (above is not None and value <= above) or (at_least is not None and value < at_least)
    if too_small or (below is not None and value >= below):
        raise ValueError(f"{name} must be {rule}, found {value!r}")
    return float(value)


def whole(name: str, value: object, *, at_least: int) -> int:
    """Return the option ``value``, which has to be a whole number.

    Args:
        name: the option, for the message.
        value: what the user gave.
        at_least: inclusive lower bound.

    Raises:
        ValueError: it is no whole number, or it is too small.
    """
    if not isinstance(value, int) or isinstance(value, bool) or value < at_least:
        raise ValueError(f"{name} must be a whole number of at least {at_least}, found {value!r}")
    return value
