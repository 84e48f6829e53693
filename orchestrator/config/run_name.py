"""Names of runs that a table of MLflow shows whole."""

from __future__ import annotations

from collections.abc import Sequence

from orchestrator.config.arm import Arm
from orchestrator.config.path_sets import PATHS, set_label
from orchestrator.config.search import AGGREGATOR

LENGTH = 32
"""MLflow's tables cut names at about 20 to 24 characters, its charts later."""
MANY = 4


def run_name(arm: Arm, seed: int, all_paths: Sequence[str]) -> str:
    """Return a name of at most 32 characters: aggregator, paths, other varied keys, seed.

    More than four paths, and sets that do not fit, are named by what is missing from all: ``adaptive all-nst s0``.
    """
    tail = f" s{seed}"
    head = arm.name.replace("/", " ", 1) if arm.paths else arm.name
    if arm.paths and (len(arm.paths) > MANY or len(head) + len(tail) > LENGTH):
        short = _short(arm.paths, all_paths, arm.choices[PATHS].label)
        aggregator = arm.choices[AGGREGATOR].label
        head = head.replace(f"{aggregator} {arm.choices[PATHS].label}", f"{aggregator} {short}", 1)
    room = LENGTH - len(tail)
    return (head if len(head) <= room else f"{head[: room - 1]}~") + tail


def _short(paths: Sequence[str], all_paths: Sequence[str], label: str) -> str:
    if label != set_label(paths):
        return label
    missing = [name for name in all_paths if name not in paths]
    short = "all" + "".join(f"-{name}" for name in missing)
    return short if len(short) < len(label) else label
