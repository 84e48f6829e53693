"""Nodes of one kind."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class NodeGroup:
    """Nodes with the same resources.

    Attributes:
        resources: what Ray calls the resources of one node, such as ``{"CPU": 8, "GPU": 1}``.
        count: how many such nodes there are, or can be.
    """

    resources: Mapping[str, float]
    count: int

    def describe(self) -> str:
        """Return the group in words."""
        parts = [f"{self.resources.get(name, 0):g} {name}" for name in ("CPU", "GPU") if self.resources.get(name)]
        return f"{self.count} x {' + '.join(parts) or 'nothing'}"
