"""What the comparison needs to know of a run before it has run."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol


class Planned(Protocol):
    """A run of a sweep, planned or ended: its arm and its seed."""

    @property
    def arm(self) -> str: ...

    @property
    def aggregator(self) -> str: ...

    @property
    def paths(self) -> tuple[str, ...]: ...

    @property
    def seed(self) -> int: ...

    @property
    def kind(self) -> str: ...

    @property
    def context(self) -> Mapping[str, Any]: ...
