"""An arm: what stays the same over the seeds of a sweep."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Arm:
    """A configuration that is run once for each seed. Two arms are the same if their names are.

    Attributes:
        name: unique label, such as ``adaptive/attention+soft_target lr=0.1``.
        aggregator: label of the aggregator, ``none`` for the student alone.
        paths: sorted names of the paths, empty for the student alone.
        context: other keys that the sweep varies, with this arm's values.
        is_alone: whether this is the student alone, without any path.
    """

    name: str
    aggregator: str = field(compare=False)
    paths: tuple[str, ...] = field(compare=False)
    context: Mapping[str, Any] = field(compare=False, default_factory=dict)
    is_alone: bool = field(compare=False, default=False)

    @property
    def setting(self) -> str:
        """The other varied keys as text, such as ``lr=0.1``; empty in the common case."""
        suffix = self.name.partition(" ")[2]
        if suffix or not self.context:
            return suffix
        return " ".join(f"{key.rpartition('.')[2]}={value}" for key, value in self.context.items())
