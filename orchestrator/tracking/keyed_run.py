"""A run that tracking knows already."""

from __future__ import annotations

from typing import Protocol


class KeyedRun(Protocol):
    """Anything that bears a run's key: a planned run, or the record of one that ended."""

    @property
    def key(self) -> str: ...
