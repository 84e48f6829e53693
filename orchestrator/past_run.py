"""What an earlier session of a sweep left of a run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class PastRun:
    """A run that was started before the sweep was resumed.

    Attributes:
        key: key of the run.
        history: the metrics of its epochs, in order.
        result: its result, or None where it didn't end and is to go on.
    """

    key: str
    history: Sequence[Mapping[str, Any]] = field(default=())
    result: Mapping[str, Any] | None = None
