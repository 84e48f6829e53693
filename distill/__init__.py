"""Multi-path knowledge distillation in pure torch: paths, aggregators, taps, and a training loop.

What every training has stands here; what there is a choice of stands in a package of its own: ``distill.paths``,
``distill.aggregators``, ``distill.models``, ``distill.data``. Nothing in this package imports ray or mlflow. The names
below are imported when first used, so that reading an experiment file does not wait for torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from distill.batch import Batch
    from distill.distiller import Distiller
    from distill.tasks import Classification
    from distill.teacher import Teacher
    from distill.trainer import Trainer

__all__ = ["Batch", "Classification", "Distiller", "Teacher", "Trainer"]

_HOMES = {
    "Batch": "batch",
    "Classification": "tasks",
    "Distiller": "distiller",
    "Teacher": "teacher",
    "Trainer": "trainer",
}


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(importlib.import_module(f"distill.{_HOMES[name]}"), name)
    raise AttributeError(f"module 'distill' has no attribute {name!r}")
