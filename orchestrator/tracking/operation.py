"""The operations that a spool holds: plain dictionaries, one JSON line each."""

from __future__ import annotations

import re
from typing import Any

# {"op": "start_run" | "metrics" | ..., "time": milliseconds since 1970, "run": key, ...}; the methods of `Tracker`
# write them and the handlers of `Mirror` read them.
Operation = dict[str, Any]

# Limits of MLflow 3.17 (mlflow/utils/validation.py).
MAX_METRICS_PER_BATCH = 1000
MAX_PARAMS_OR_TAGS_PER_BATCH = 100
MAX_PARAM_LENGTH = 6000
MAX_RUN_TAG_LENGTH = 8000
MAX_EXPERIMENT_TAG_LENGTH = 20_000
MAX_KEY_LENGTH = 250

_NOT_ALLOWED_IN_KEYS = re.compile(r"[^\w\-. :/]", flags=re.ASCII)


def mlflow_key(name: str) -> str:
    """Return ``name`` with the characters that MLflow refuses in a key replaced by ``_``."""
    return _NOT_ALLOWED_IN_KEYS.sub("_", name)[:MAX_KEY_LENGTH]


def cut(value: str, length: int) -> str:
    """Return ``value``, or its beginning and ``...`` where it is longer than ``length``."""
    return value if len(value) <= length else value[: length - 3] + "..."
