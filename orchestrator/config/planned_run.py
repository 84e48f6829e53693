"""One run of a design: who it is, and the whole of what it shall do."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal


@dataclass(frozen=True)
class PlannedRun:
    """A run before it has run.

    Attributes:
        key: short stable id, the head of the configuration's hash; unique in a sweep.
        name: at most 32 characters, such as ``adaptive soft_target+attention s0``.
        arm: what the runs of different seeds have in common, such as ``adaptive/soft_target+attention lr=0.1``.
        aggregator: its label; ``none`` for a student trained alone.
        paths: sorted names; empty for a student trained alone.
        seed: of the run.
        kind: ``student`` for a student trained alone, ``run`` for all others.
        context: the other varied keys with this arm's values.
        config: the resolved experiment of this one run, plain data without ``search``.
        config_hash: its hash.
        assignment: the arm as plain data, from which :meth:`Design.arm` makes it again; empty for controls.
    """

    key: str
    name: str
    arm: str
    aggregator: str
    paths: tuple[str, ...]
    seed: int
    kind: Literal["run", "student"]
    context: dict[str, Any]
    config: dict[str, Any]
    config_hash: str
    assignment: dict[str, Any] = field(default_factory=dict)
