"""What tracking needs to know of a run."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol


class PlannedRun(Protocol):
    """A run of a sweep, or a single one: who it is and what it was asked to do."""

    @property
    def key(self) -> str: ...

    @property
    def name(self) -> str: ...

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

    @property
    def config(self) -> Mapping[str, Any]: ...

    @property
    def config_hash(self) -> str: ...
