"""What the two aggregators that ask a multi-objective method have in common."""

from __future__ import annotations

from abc import ABC
from collections.abc import Mapping
from typing import Any, ClassVar, Unpack

import torch
from torch import Tensor

from distill.aggregators.base import Aggregator, Common, Losses
from distill.aggregators.gradients import SharedGradients
from distill.aggregators.multi_objective import MultiObjectiveMethod
from distill.aggregators.needs import Needs
from distill.gradient_scope import ParameterScope, parameter_scope
from distill.options import whole

LARGEST_FACTOR = 1e6
"""By how much normalising makes a gradient longer at most, so that none is divided by zero."""


class GradientMethod(Aggregator, ABC):
    """Asks a method of multi-objective optimisation what to make of the gradients of task and paths.

    The gradients are means over the ranks, so that each rank asks the same. Random numbers come from ``seed`` and the
    number of the step alone, and all that a method remembers is part of a checkpoint.
    """

    methods: ClassVar[tuple[str, ...]]
    """The names to choose from."""
    separate = False
    compiles = False

    def __init__(
        self,
        method: str,
        options: Mapping[str, Any] | None = None,
        scope: ParameterScope = "last",
        normalize_rows: bool = False,
        seed: int = 0,
        **common: Unpack[Common],
    ) -> None:
        super().__init__(**common)
        self.scope = parameter_scope(scope)
        self.normalize_rows = bool(normalize_rows)
        self._method = MultiObjectiveMethod(self.methods, method, options, seed=whole("seed", seed, at_least=0))
        self._step = -1

    @property
    def own_needs(self) -> Needs:
        return Needs(gradients=frozenset({self.scope}))

    def allocate(self, num_keys: int) -> None:
        if num_keys:
            self._method.connect(1 + num_keys)

    def advance(self, progress: float) -> None:
        super().advance(progress)
        self._step += 1

    def get_extra_state(self) -> dict[str, Any]:
        """Return the number of steps and what the method remembers, for checkpoints."""
        return {"step": self._step, "method": self._method.state()}

    def set_extra_state(self, state: dict[str, Any]) -> None:
        """Put back what :meth:`get_extra_state` returned."""
        self._step = state["step"]
        self._method.restore(state["method"])

    def _gradients(self, losses: Losses) -> SharedGradients:
        return losses.shared(self.scope)

    def _factors(self, gram: Tensor) -> Tensor:
        """Return by how much to multiply each row ``[1 + key]`` before the method sees it."""
        if not self.normalize_rows:
            return torch.ones(len(gram), dtype=gram.dtype)
        lengths = gram.diagonal().clamp_min(0).sqrt()
        return (lengths[0] / lengths.clamp_min(torch.finfo(gram.dtype).tiny)).clamp(max=LARGEST_FACTOR)
