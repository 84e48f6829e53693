"""Aggregators as their tests see them: named losses, without models."""

from __future__ import annotations

import importlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import ModuleType
from typing import Any

import pytest
import torch

from distill import aggregators
from distill.aggregators import Aggregator, Losses
from distill.schema import schema

Layers = Mapping[str, Sequence[str]]

TWO_PATHS: Layers = {"attention": ("layer1", "layer2"), "soft_target": ("logits",)}


@dataclass(frozen=True)
class Example:
    """How to build a registered aggregator, and for which paths."""

    options: dict[str, Any] = field(default_factory=dict)
    layers: Layers = field(default_factory=lambda: TWO_PATHS)


EXAMPLES: dict[str, Example] = {
    "Fixed": Example({"weights": {"attention": 1000.0, "soft_target": 0.1}}),
    "Fixed by layer": Example(
        {"weights": {"attention.layer1": 1000.0, "attention.layer2": 10.0, "soft_target.logits": 0.1}}
    ),
    "Single": Example({"weight": 0.1}, {"soft_target": ("logits",)}),
}
"""The aggregators that need arguments, or refuse two paths."""


ONE = ("Single",)
"""Those that take one loss."""


def variants() -> list[str]:
    """Return every registered aggregator, and `NAME by layer` for those that can weigh layers."""
    names = sorted(aggregators.__all__)
    by_layer = [
        name for name in names if "granularity" in schema(getattr(aggregators, name)).options and name not in ONE
    ]
    return [*names, *(f"{name} by layer" for name in by_layer)]


def example(variant: str) -> Aggregator:
    """Return a connected instance."""
    name, by_layer, _ = variant.partition(" by layer")
    given = EXAMPLES.get(variant, EXAMPLES.get(name, Example()))
    options = {**given.options, **({"granularity": "layer"} if by_layer else {})}
    try:
        aggregator: Aggregator = getattr(aggregators, name)(**options)
    except TypeError as error:
        pytest.fail(f"{name} needs arguments: add it to EXAMPLES in aggregators/aggregator_cases.py ({error})")
    aggregator.connect(given.layers)
    return aggregator


def losses_of(*values: float, task: float = 1.0, dtype: torch.dtype = torch.float64) -> Losses:
    """Return losses that are leaves, so that a test can read their gradient."""
    paths = torch.tensor(values, dtype=dtype, requires_grad=True)
    keys = tuple(f"key{index}" for index in range(len(values)))
    return Losses(torch.tensor(task, dtype=dtype, requires_grad=True), paths, keys, progress=0.0)


def connected(aggregator: Aggregator, num_paths: int) -> Aggregator:
    """Connect to paths `a`, `b`, ... of one layer each."""
    aggregator.connect(dict.fromkeys("abcdefgh"[:num_paths], ("only",)))
    return aggregator


def module_of(name: str) -> ModuleType:
    """Return the test module of the registered aggregator `name`, which holds its goldens."""
    module = f"test_{getattr(aggregators, name).__module__.rpartition('.')[2]}"
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError:
        pytest.fail(
            f"{name} has no tests: add tests/distill/aggregators/{module}.py with GOLDENS (hand-derived values, "
            "functions of the class)"
        )
