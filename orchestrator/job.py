"""One training as plain data: what is handed to the host that runs it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal


@dataclass(frozen=True)
class StoreJob:
    """Which of a run's targets are stored, and where.

    Attributes:
        folder: path or URI of the store.
        precision: in which numbers are kept.
        paths: the paths whose targets are read from the store; the others ask the teacher.
    """

    folder: str
    precision: Literal["exact", "float16"]
    paths: tuple[str, ...]


@dataclass(frozen=True)
class Job:
    """A training to execute, in this process or on any node of a cluster.

    Attributes:
        config: the resolved experiment of this one run.
        config_hash: its hash; a checkpoint of another configuration is never continued.
        directory: path or URI of the run's own folder.
        role: whether this trains a student, or the teacher of others, or is a ``trial`` of what these cost, in which
            the teacher need not be trained.
        teacher: path or URI of the teacher's folder, where the run has one.
        store: the target store, where it is used.
        name: what people call the run.
    """

    config: dict[str, Any]
    config_hash: str
    directory: str
    role: Literal["student", "teacher", "trial"] = "student"
    teacher: str | None = None
    store: StoreJob | None = None
    name: str = ""

    def to_dict(self) -> dict[str, Any]:
        """Return plain data."""
        return asdict(self)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Job:
        """Rebuild from :meth:`to_dict`."""
        store = data.get("store")
        return cls(
            **{**data, "store": None if store is None else StoreJob(**{**store, "paths": tuple(store["paths"])})}
        )
