"""Multi-path knowledge distillation in pure torch: paths, aggregators, taps, and a training loop.

Nothing in this package imports ray or mlflow. The names below are imported when first used, so that reading an
experiment file does not wait for torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from distill.aggregators import Adaptive, AdaptivePaper, Equal, Fixed, LogSum, Single
    from distill.batch import Batch
    from distill.distiller import Distiller
    from distill.paths import AttentionTransfer, FeatureMap, Logits, NSTGram, SoftmaxRegression, SoftTarget
    from distill.tasks import Classification
    from distill.teacher import Teacher
    from distill.trainer import Trainer

__all__ = [
    "Adaptive",
    "AdaptivePaper",
    "AttentionTransfer",
    "Batch",
    "Classification",
    "Distiller",
    "Equal",
    "FeatureMap",
    "Fixed",
    "LogSum",
    "Logits",
    "NSTGram",
    "Single",
    "SoftTarget",
    "SoftmaxRegression",
    "Teacher",
    "Trainer",
]

_HOMES = ("aggregators", "batch", "distiller", "paths", "tasks", "teacher", "trainer")


def __getattr__(name: str) -> Any:
    if name in __all__:
        for home in _HOMES:
            module = importlib.import_module(f"distill.{home}")
            if name in vars(module):
                return getattr(module, name)
    raise AttributeError(f"module 'distill' has no attribute {name!r}")
