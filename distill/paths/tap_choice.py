"""How users say between which taps a path acts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

TapChoice = Literal["auto"] | Sequence[Mapping[str, str]]
"""``auto``, or pairs such as ``[{student: layer2, teacher: layer3}]``."""


def names_pairs(taps: object) -> bool:
    """Whether an option ``taps`` is a list of pairs."""
    return (
        isinstance(taps, Sequence)
        and len(taps) > 0
        and not isinstance(taps, str)
        and all(
            isinstance(pair, Mapping)
            and set(pair) == {"student", "teacher"}
            and all(isinstance(name, str) for name in pair.values())
            for pair in taps
        )
    )
