"""One training as plain data: what is handed to the host that runs it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal


@dataclass(frozen=True)
class Job:
    """A training to execute, in this process or on any node of a cluster.

    Attributes:
        config: the resolved experiment of this one run.
        config_hash: its hash; a checkpoint of another configuration is never continued.
        directory: path or URI of the run's own folder.
        role: whether this trains a student or the teacher of others.
        teacher: path or URI of the teacher's folder, where the run has one.
    """

    config: dict[str, Any]
    config_hash: str
    directory: str
    role: Literal["student", "teacher"] = "student"
    teacher: str | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return plain data."""
        return asdict(self)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Job:
        """Rebuild from :meth:`to_dict`."""
        return cls(**data)
