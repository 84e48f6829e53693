"""Aggregators as their tests see them: named losses, without models."""

from __future__ import annotations

import importlib
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import Tensor

from distill import aggregators
from distill.aggregators import Aggregator, Losses
from distill.aggregators.gradients import Gradients, SharedGradients, TapGradients
from distill.aggregators.modifiers import Bound, CosineGate, Modifier, Normalize, Ramp
from distill.gradient_scope import Scope
from distill.schema import schema
from distill.trajectory import Trajectory

Layers = Mapping[str, Sequence[str]]

TWO_PATHS: Layers = {"attention": ("layer1", "layer2"), "soft_target": ("logits",)}


@dataclass(frozen=True)
class Example:
    """How to build a registered aggregator, and for which paths; `files` write what options of their name point to."""

    options: dict[str, Any] = field(default_factory=dict)
    layers: Layers = field(default_factory=lambda: TWO_PATHS)
    files: Mapping[str, Callable[[Path], None]] = field(default_factory=dict)


def write_record(path: Path) -> None:
    """Write the trajectory of a run of two paths whose weights move."""
    trajectory = Trajectory(TWO_PATHS)
    for step in range(4):
        weights = [1.0 + step, 0.5, 2.0 - step / 2]
        trajectory.append(
            step=step, epoch=1, progress=step / 4, total=1.0, task=1.0, losses=[1.0, 3.0, 2.0], weights=weights
        )
    trajectory.write(path)


EXAMPLES: dict[str, Example] = {
    "Fixed": Example({"weights": {"attention": 1000.0, "soft_target": 0.1}}),
    "Fixed by layer": Example(
        {"weights": {"attention.layer1": 1000.0, "attention.layer2": 10.0, "soft_target.logits": 0.1}}
    ),
    "Replay": Example(files={"file": write_record}),
    "GradientBalance": Example({"method": "PCD"}),
    "GradientDirection": Example({"method": "ConFIG"}),
    "Single": Example({"weight": 0.1}, {"soft_target": ("logits",)}),
    "DistPro": Example({"every": 1}),
    "DistPro by layer": Example({"every": 2, "scope": "last", "relative": False}),
    "GradNorm": Example({"every": 1}),
    "Adaptive from its first losses": Example({"initial": "log_loss"}),
    "DWA with the task": Example({"include_task": True}),
    "GradNorm with the task": Example({"include_task": True, "every": 2, "scope": "all"}),
    "RandomWeights with the task": Example({"include_task": True}),
    "UncertaintyWeighting with the task": Example({"include_task": True, "initial": "log_loss"}),
}
"""The aggregators that need arguments, refuse two paths, or are there once more with other options."""

METHODS: dict[str, tuple[str, dict[str, Any]]] = {
    **{
        f"GradientBalance by {method}": ("GradientBalance", {"method": method, **options})
        for method, options in {
            "AlignedMTL": {},
            "CAGrad": {"options": {"c": 0.4}},
            "DualProj": {},
            "ExcessMTL": {"options": {"n_warmup_steps": 2}},
            "FairGrad": {"options": {"alpha": 1.0}, "normalize_rows": True},
            "GradVac": {"seed": 3},
            "IMTLG": {},
            "Krum": {"options": {"n_byzantine": 0, "n_selected": 2}},  # the nearest two: of one, rounding decides
            "MGDA": {"normalize_rows": True},
            "NashMTL": {},
            "PCGrad": {"every": 2, "scope": "all"},
            "UPGrad": {},
        }.items()
    },
    **{
        f"GradientDirection by {method}": ("GradientDirection", {"method": method, **options})
        for method, options in {
            "GradDrop": {"seed": 3, "options": {"leak": [0.5, 0.0, 0.1]}},
            "TrimmedMean": {"options": {"trim_number": 1}, "normalize_rows": True},
        }.items()
    },
}
"""More examples of aggregators that are several in one: every method but those that EXAMPLES has already."""


ONE = ("Single",)
"""Those that take one loss."""

MODIFIED: dict[str, tuple[str, Callable[[], list[Modifier]]]] = {
    "LogSum with a bound": ("LogSum", lambda: [Bound(growth=1.5, over=2)]),
    "LogSum with a constant total": ("LogSum", lambda: [Normalize()]),
    "Adaptive with a ramp": ("Adaptive", lambda: [Ramp(shape="cosine")]),
    "Adaptive with a gate at the taps": ("Adaptive", lambda: [CosineGate(every=1, wait=1)]),
    "LogSum with a gate in the last stage": (
        "LogSum",
        lambda: [CosineGate("last", every=2, wait=1, form="smooth", dense=0)],
    ),
    "Equal with everything": (
        "Equal",
        lambda: [CosineGate("all", 1, form="weighted"), Bound(0.5), Ramp(), Normalize(3)],
    ),
    "DistPro with a bound": ("DistPro", lambda: [Bound(growth=1.01, over=1)]),
    "FAMO with a bound": ("FAMO", lambda: [Bound(growth=1.1, over=1)]),
    "Adaptive from its first losses": ("Adaptive", list),
    **{f"{name} with the task": (name, list) for name in ("DWA", "GradNorm", "RandomWeights", "UncertaintyWeighting")},
}
"""Aggregators with modifiers, or with other options, that take part in the tests of the family."""

OTHERWISE: dict[str, tuple[str, dict[str, Any]]] = {
    "Chebyshev of losses as they are": ("Chebyshev", {"relative": False}),
    "GeometricMean with the task": ("GeometricMean", {"include_task": True}),
    "Order that keeps": ("Order", {"keep": True}),
    **METHODS,
}
"""Aggregators with options that change what they compute, and take part in the tests of the family too."""


WITHOUT_SOLVER = ("NashMTL",) if sys.version_info >= (3, 13) else ()
"""Methods whose solver (ecos) has no package for this Python; without that of any other the tests fail."""


def variants() -> list[str]:
    """Return every registered aggregator, `NAME by layer` for those that can weigh layers, and those set otherwise.

    Without the methods whose solver has no package for this Python.
    """
    names = sorted(aggregators.__all__)
    by_layer = [
        name for name in names if "granularity" in schema(getattr(aggregators, name)).options and name not in ONE
    ]
    otherwise = [name for name in OTHERWISE if name.rpartition(" by ")[2] not in WITHOUT_SOLVER]
    return [*names, *(f"{name} by layer" for name in by_layer), *MODIFIED, *otherwise]


def example(variant: str, added: Sequence[Modifier] = ()) -> Aggregator:
    """Return a connected instance, with these modifiers too."""
    name, by_layer, _ = variant.partition(" by layer")
    name, modifiers = MODIFIED.get(name, (name, list))
    name, otherwise = OTHERWISE.get(name, (name, {}))
    given = EXAMPLES.get(variant, EXAMPLES.get(name, Example()))
    options = {**given.options, **otherwise, **({"granularity": "layer"} if by_layer else {})}
    if modifiers is not list or added:
        options["modifiers"] = [*modifiers(), *added]
    with tempfile.TemporaryDirectory() as folder:
        for option, write in given.files.items():
            options[option] = str(Path(folder) / option)
            write(Path(options[option]))
        try:
            aggregator: Aggregator = getattr(aggregators, name)(**options)
        except TypeError as error:
            pytest.fail(f"{name} needs arguments: add it to EXAMPLES in aggregators/aggregator_cases.py ({error})")
    aggregator.connect(given.layers)
    return aggregator


def gradients_of(task: Tensor, paths: Tensor, parameters: Sequence[Tensor], place: Tensor) -> dict[Scope, Gradients]:
    """Return what a distiller would: the gradients in these parameters, and in one activation where all paths act."""
    shared = SharedGradients(task, paths, parameters)
    return {"taps": TapGradients(task, paths, [[place]] * len(paths)), "last": shared, "all": shared}


def losses_with_gradients(*values: float, task: float = 1.0, dtype: torch.dtype = torch.float64) -> Losses:
    """Return losses that depend on four shared numbers."""
    generator = torch.Generator().manual_seed(len(values))
    slopes = torch.randn(1 + len(values), 4, generator=generator, dtype=torch.float64).to(dtype)
    return losses_with_rows(slopes, *values, task=task)[0]


def losses_with_rows(rows: Tensor, *values: float, task: float = 1.0) -> tuple[Losses, Tensor]:
    """Return losses (each 1 where no values are given) with these gradients ``[1 + key, number]``, and the numbers."""
    values = values or (1.0,) * (len(rows) - 1)
    shared = torch.zeros(rows.shape[1], dtype=rows.dtype, requires_grad=True)
    levels = torch.tensor([task, *values], dtype=rows.dtype) + (rows * shared).sum(dim=1)
    own, paths = levels[0], levels[1:]
    keys = tuple(f"key{index}" for index in range(len(values)))
    return Losses(own, paths, keys, 0.0, gradients_of(own, paths, [shared], shared)), shared


def losses_of(*values: float, task: float = 1.0, dtype: torch.dtype = torch.float64) -> Losses:
    """Return losses that are leaves, so that a test can read their gradient."""
    paths = torch.tensor(values, dtype=dtype, requires_grad=True)
    keys = tuple(f"key{index}" for index in range(len(values)))
    return Losses(torch.tensor(task, dtype=dtype, requires_grad=True), paths, keys, progress=0.0)


def connected(aggregator: Aggregator, num_paths: int) -> Aggregator:
    """Connect to paths `a`, `b`, ... of one layer each."""
    aggregator.connect(dict.fromkeys("abcdefgh"[:num_paths], ("only",)))
    return aggregator


HARD_LOSSES: tuple[tuple[float, ...], ...] = (
    (0.0,),
    (7.0,),
    (0.0, 0.0),
    (0.0, 1.0),
    (1e30, 0.0),
    (1e30, 1e30),
    (1e-38, 1.0),
    (1e-44, 1e-38, 1.0),  # the first one is denormal in float32
    (1e-10, 1.0, 1e10),
    (1e10, 1e-10, 0.0),
    (5.0, 5.0, 5.0, 5.0),
)
"""Losses of no, of any and of the same size, from the smallest to the largest that float32 knows."""


def hard_rows(base: Tensor) -> dict[str, Tensor]:
    """Return gradients `[3, parameter]`, the task's first, that are zero, opposed, equal, or far apart in length."""
    return {
        "zero path": base * torch.tensor([[1.0], [0.0], [1.0]]),
        "zero task": base * torch.tensor([[0.0], [1.0], [1.0]]),
        "all zero": base * 0,
        "opposed": base[0] * torch.tensor([[1.0], [-1.0], [-2.0]]),
        "equal": base[0].expand(3, -1),
        "small": base * 1e-10,
        "large": base * 1e10,
        "mixed": base * torch.tensor([[1.0], [1e-10], [1e10]]),
        "mixed the other way": base * torch.tensor([[1e10], [1.0], [1e-10]]),
    }


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
