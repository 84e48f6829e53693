"""How many of a run's training images its aggregator keeps out of the training."""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

from distill.aggregators import Aggregator
from distill.build import build
from distill.slots import AGGREGATOR

HELD_OUT = "held_out"
"""Where a configuration that stands for several runs, with another aggregator than theirs, says their share."""


def held_out_share(config: Mapping[str, Any]) -> float:
    """Return the share of the training images that a run holds out; 0: none.

    Args:
        config: of a run, or of a group of runs that share their targets.
    """
    if HELD_OUT in config:
        share: float = config[HELD_OUT]
        return share
    return _share_of(json.dumps(config["aggregator"], sort_keys=True), tuple(config["modules"]))


@lru_cache(maxsize=4096)
def _share_of(spec: str, modules: tuple[str, ...]) -> float:
    """Ask each aggregator once: the runs of a sweep share most of theirs."""
    aggregator: Aggregator = build(json.loads(spec), AGGREGATOR, modules=modules)
    return aggregator.needs.held_out
