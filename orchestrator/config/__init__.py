"""Experiment files: read, checked, resolved, and expanded into runs.

Importing this does not import torch, so that errors of syntax and structure answer at once; ``Design`` and ``load``,
which look at what a file names, are imported when first used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from orchestrator.config.errors import Mistake, UserError
from orchestrator.config.experiment import Experiment, canonical_json, config_hash, differing_keys
from orchestrator.config.planned_run import PlannedRun
from orchestrator.config.sections import ModelSection, RunOptions, TeacherSection, TrainOptions
from orchestrator.config.structure import load_structure

if TYPE_CHECKING:
    from orchestrator.config.arm import Arm
    from orchestrator.config.arm_proposer import ArmProposer
    from orchestrator.config.design import Design
    from orchestrator.config.semantics import load

__all__ = [
    "Arm",
    "ArmProposer",
    "Design",
    "Experiment",
    "Mistake",
    "ModelSection",
    "PlannedRun",
    "RunOptions",
    "TeacherSection",
    "TrainOptions",
    "UserError",
    "canonical_json",
    "config_hash",
    "differing_keys",
    "load",
    "load_structure",
]

_LATE = {"Arm": "arm", "ArmProposer": "arm_proposer", "Design": "design", "load": "semantics"}


def __getattr__(name: str) -> Any:
    if name not in _LATE:
        raise AttributeError(f"module 'orchestrator.config' has no attribute {name!r}")
    return getattr(importlib.import_module(f"orchestrator.config.{_LATE[name]}"), name)
