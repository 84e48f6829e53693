"""Which aggregators take which paths: the aggregators' own word."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from distill.aggregators import Aggregator
from distill.build import build
from distill.slots import AGGREGATOR, PATH


def refusal(aggregator: Mapping[str, Any], paths: Mapping[str, Any], modules: Sequence[str] = ()) -> str:
    """Say why an aggregator cannot take some paths; empty: it can.

    Args:
        aggregator: its specification.
        paths: theirs, by name.
        modules: modules of the user's own.
    """
    negative = [name for name, spec in paths.items() if not build(spec, PATH, modules=modules).non_negative]
    try:
        made: Aggregator = build(aggregator, AGGREGATOR, modules=modules)
        made.check_paths(list(paths), negative)
        if made.key_kind != "layer":
            # Which layers a path has does not matter to weights of paths and groups. Weights of layers are asked for
            # once both models are built; see orchestrator.build_branches.
            made.connect(dict.fromkeys(paths, ("layer",)), negative)
    except ValueError as error:
        return str(error)
    return ""
