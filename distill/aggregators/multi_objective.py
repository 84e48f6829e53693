"""The one place that knows torchjd: multi-objective methods by name, with their state and their random numbers.

torchjd (MIT; Quinton and Rey 2024, arXiv:2406.16232) is optional, and imported when a method is made. It is in beta and
changes between minor releases: all that we rely on beyond calling a method stands in the tables below.
"""

from __future__ import annotations

import contextlib
import copy
import importlib
import inspect
import math
import re
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from distill.counter_random import derive_seed
from distill.options import finite
from distill.random_state import seed_torch
from distill.schema import nearest, suggestion

WEIGHTINGS = (
    "AlignedMTL",
    "CAGrad",
    "DualProj",
    "ExcessMTL",
    "FairGrad",
    "GradVac",
    "IMTLG",
    "Krum",
    "MGDA",
    "NashMTL",
    "PCD",
    "PCGrad",
    "UPGrad",
)
"""Those that give each gradient a weight."""
DIRECTIONS = ("ConFIG", "GradDrop", "TrimmedMean")
"""Those whose direction is no weighted sum of the gradients, or is not made as one."""
REFUSED = {
    "MoDo": "it needs gradients of two batches that are independent of each other, and a step has one",
    "SDMGrad": "it needs gradients of two batches that are independent of each other, and a step has one",
    "Random": "it looks at no gradient; the aggregator RandomWeights draws weights",
    "Constant": "it looks at no gradient; the aggregator Fixed has constant weights",
    "Mean": "it looks at no gradient; the aggregator Equal gives all paths one weight",
    "Sum": "it looks at no gradient; the aggregator Equal gives all paths one weight",
}
"""What torchjd has besides, and why not here."""
NOT_PLAIN = ("f", "projector")
"""Options of torchjd's that take functions and objects, which a file cannot give."""
VECTORS_OF_PATHS = ("tau",)
"""Vectors that have a number for each path alone; all others begin with the task's."""
INSTALL = "pip install 'distillery[gradient]'"

_OF_ROWS = ("ExcessMTL", "NashMTL")
"""Weightings that read the gradients themselves; all others read their inner products."""
_OF_SIZE = ("FairGrad", "PCD")
"""Those whose weights depend on how long all gradients are together. The others get inner products in units of their
trace: torchjd compares them with absolute numbers (1e-4 in CAGrad, DualProj and UPGrad), below which those would turn
into the mean of all gradients, or into nothing, late in a training and without a word."""
_STATE = {
    "ExcessMTL": ("_weights", "_sq_grad_sum", "_initial_w", "_warmup_w_sum", "_n_steps"),
    "GradVac": ("_phi_t",),
    "NashMTL": ("prvs_alpha", "normalization_factor", "step"),
    "PCD": ("_sq_norm_ema", "_n_steps"),
}
"""What the methods keep from step to step, most of it outside their ``state_dict``."""


class MultiObjectiveMethod:
    """A method of torchjd, made of plain data.

    No ``nn.Module``: the buffers of torchjd's appear with the first step, and a checkpoint would not fit a fresh one.

    Args:
        kind: what the method is made for: the names to choose from.
        method: one of them.
        options: of the method, as torchjd names them; lists of numbers stand for vectors.
        seed: of the random numbers that some methods draw.

    Raises:
        ValueError: an unknown name or option, an option out of bounds, or a package is not installed.
    """

    def __init__(self, kind: tuple[str, ...], method: str, options: Mapping[str, Any] | None, *, seed: int) -> None:
        _check_name(kind, method)
        self._name = method
        self._seed = seed
        self._options = {name: _plain(f"options.{name}", value) for name, value in (options or {}).items()}
        self._aggregator = _made(method, self._options)
        self._restored: Mapping[str, Any] | None = None

    def connect(self, num_rows: int) -> None:
        """Learn how many gradients there will be, and forget those that there were.

        Raises:
            ValueError: the method, or one of its options, does not fit that many.
        """
        self._aggregator = _made(self._name, self._options)
        self._restored = None
        if self._name == "NashMTL":
            self._aggregator.n_tasks = num_rows
            self._aggregator.reset()
        rehearsal = copy.deepcopy(self)
        try:
            rehearsal._call(rehearsal._solver, torch.eye(num_rows, dtype=torch.float64), step=0)
        except (IndexError, RuntimeError, ValueError) as error:
            raise ValueError(_misfit(self._name, self._options, num_rows, error)) from error

    def weights(self, rows: Tensor, gram: Tensor, *, step: int) -> Tensor:
        """Return the weights ``[row]``, float64 and on the CPU.

        Args:
            rows: ``[row, parameter]``, finite and not all zero.
            gram: their inner products ``[row, row]``, float64 and on the CPU.
            step: number of this step; random numbers depend on it and on the seed alone.
        """
        statistic = rows if self._name in _OF_ROWS else gram
        if self._name not in (*_OF_ROWS, *_OF_SIZE):
            statistic = gram / gram.diagonal().sum()
        return self._call(self._solver, statistic, step=step).to("cpu", torch.float64)

    def direction(self, rows: Tensor, *, step: int) -> Tensor:
        """Return the direction ``[parameter]`` of finite rows ``[row, parameter]``."""
        for name, value in self._options.items():
            if isinstance(value, Tensor):
                setattr(self._aggregator, name, value.to(rows))
        return self._call(self._aggregator, rows, step=step)

    def state(self) -> dict[str, Any]:
        """Return what the method keeps from step to step, as tensors and plain data."""
        if self._restored is not None:
            return dict(self._restored)
        return {name: _saved(getattr(self._solver, name)) for name in _STATE.get(self._name, ())}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on from what :meth:`state` returned."""
        self._restored = dict(state)

    @property
    def _solver(self) -> Any:
        """What gives the weights, and keeps the state; the method itself where there are no weights."""
        if self._name in DIRECTIONS:
            return self._aggregator
        return self._aggregator.weighting if self._name in _OF_ROWS else self._aggregator.gramian_weighting

    def _call(self, solver: Any, statistic: Tensor, *, step: int) -> Tensor:
        seed = derive_seed(self._seed, self._name, step)
        state, self._restored = self._restored, None
        with torch.no_grad(), torch.autocast(statistic.device.type, enabled=False):
            if state:
                with _random_numbers(seed, statistic.device):
                    solver(statistic)  # lets it allocate what belongs to shape and device
                for name, value in state.items():
                    setattr(solver, name, _loaded(value, getattr(solver, name), statistic.device))
            with _random_numbers(seed, statistic.device):
                found: Tensor = solver(statistic)
        return found


def exact_gram(rows: Tensor, *, chunk: int = 2**20) -> Tensor:
    """Return the inner products ``[row, row]`` of rows ``[row, parameter]``, in float64, on the CPU.

    A product of float32 matrices may be made of TF32 numbers, too coarse to tell the sign of a small cosine.
    """
    gram = torch.zeros(len(rows), len(rows), dtype=torch.float64, device=rows.device)
    for part in torch.split(rows.detach(), chunk, dim=1):
        exact = part.double()
        gram += exact @ exact.mT
    return gram.cpu()


def _check_name(kind: tuple[str, ...], method: str) -> None:
    if method in kind:
        return
    if method in REFUSED:
        raise ValueError(f"method: torchjd's {method} is not offered, for {REFUSED[method]}")
    other = "GradientBalance" if method in WEIGHTINGS else "GradientDirection" if method in DIRECTIONS else ""
    advice = f"; {method} belongs to {other}" if other else f".{suggestion(nearest(method, kind))}"
    raise ValueError(f"method must be one of {', '.join(kind)}, found {method!r}{advice}")


def _check_option_names(method: str, options: Mapping[str, Any], parameters: Mapping[str, inspect.Parameter]) -> None:
    known = [name for name in parameters if name not in (*NOT_PLAIN, "n_tasks")]
    if "n_tasks" in options and "n_tasks" in parameters:
        raise ValueError("options.n_tasks is known from the paths: leave it out")
    for name in options:
        if name not in known:
            close = nearest(name, known) or (known[0] if len(known) == 1 else "")
            raise ValueError(f"options.{name}: {method} takes {', '.join(known) or 'no options'}.{suggestion(close)}")
    for name in known:
        if parameters[name].default is inspect.Parameter.empty and name not in options:
            raise ValueError(f"options.{name} must be given: {method} has no default for it")


def _made(method: str, options: Mapping[str, Any]) -> Any:
    try:
        make = getattr(importlib.import_module("torchjd.aggregation"), method)
    except ModuleNotFoundError as error:
        raise ValueError(f"method: {method} needs torchjd, which is not installed: {INSTALL}") from error
    _check_option_names(method, options, inspect.signature(make).parameters)
    if method == "NashMTL":
        options = {"n_tasks": 1, **options}
    if method == "FairGrad" and "alpha" in options:
        finite("options.alpha", options["alpha"], at_least=0)
    try:
        return make(**options)
    except ImportError as error:
        raise ValueError(f"method: {method} needs packages that are not installed ({error}): {INSTALL}") from error
    except (TypeError, ValueError) as error:
        raise ValueError(_complaint(method, options, str(error))) from error


def _complaint(method: str, options: Mapping[str, Any], text: str) -> str:
    """Return what torchjd says against options, under the name of the one that it is about."""
    named = [name for name in options if re.search(rf"\b{name}\b", text)]
    at_fault = named if len(named) == 1 else list(options)
    key = f"options.{at_fault[0]}" if len(at_fault) == 1 else "options"
    return f"{key}: {method} does not take this: {_plainly(text)}"


def _misfit(method: str, options: Mapping[str, Any], num_rows: int, error: Exception) -> str:
    """Say in terms of paths why a method does not take so many gradients, which torchjd calls rows of a matrix."""
    paths = f"{num_rows - 1} path" if num_rows == 2 else f"{num_rows - 1} paths"
    for name, value in options.items():
        wanted = num_rows - 1 if name in VECTORS_OF_PATHS else num_rows
        if isinstance(value, Tensor) and len(value) != wanted:
            whose = f"{paths}" if name in VECTORS_OF_PATHS else f"the task and {paths}"
            return f"options.{name} must be a list of {wanted}, a number each for {whose}, found {len(value)}"
    text = str(error)
    rows = re.search(r"(\d+) rows(?: \((?:i\.e\. )?`?([^)`]+))?", text)
    if rows is None:
        return _complaint(method, options, text)
    named = next((name for name in options if name in (rows[2] or "")), "")
    key = f"options.{named}" if named else "method"
    reason = f" ({rows[2]})" if named else ""
    return f"{key}: {method} needs at least {rows[1]} gradients{reason}, and the task and {paths} have {num_rows}"


def _plainly(text: str) -> str:
    """Return a sentence of torchjd's without its markup."""
    return re.sub(r"^(Attribute|Parameter) ", "", text).replace("`", "").rstrip(".")


def _plain(name: str, value: Any) -> Any:
    """Return an option as torchjd takes it."""
    if isinstance(value, list | tuple):
        numbers = [finite(f"{name}[{number}]", item) for number, item in enumerate(value)]
        return torch.tensor(numbers, dtype=torch.float64)
    if value is None or isinstance(value, str) or (isinstance(value, int | float) and math.isfinite(value)):
        return value
    raise ValueError(f"{name} must be a finite number, a list of them, a name or None, found {value!r}")


@contextlib.contextmanager
def _random_numbers(seed: int, device: torch.device) -> Iterator[None]:
    """Let torch draw from streams of this seed, on the CPU and on the device, and put its generators back."""
    devices = [device] if device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices):
        seed_torch(seed, device)
        yield


def _saved(value: Any) -> Any:
    if isinstance(value, np.ndarray):
        return torch.from_numpy(value.copy())
    return value.detach().clone() if isinstance(value, Tensor) else value


def _loaded(value: Any, present: Any, device: torch.device) -> Any:
    if isinstance(present, np.ndarray):
        return value.cpu().numpy().copy()
    if not isinstance(value, Tensor):
        return value
    return value.to(present.device if isinstance(present, Tensor) else device, copy=True)
