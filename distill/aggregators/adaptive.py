"""Weights that are learned along with the student."""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from distill.aggregators.base import Aggregate, Aggregator, Granularity, Losses
from distill.aggregators.modifiers.base import Modifier
from distill.options import finite

logger = logging.getLogger(__name__)

LARGE_WEIGHT = 1e4
"""An unbounded weight above this is reported: by then one path's noise can outweigh everything else."""
STEPS_BETWEEN_CHECKS = 100
"""Reading a weight makes the GPU wait, so there it is looked at this seldom; weights drift slowly."""


class Adaptive(Aggregator):
    """Learns how much each path counts: one scalar ``a_i`` a path (or a layer), trained with the student.

    The weight of a path is ``alpha_distill * exp(-a_i)``, and the sum of the ``a_i`` keeps it from vanishing::

        total = L_task + alpha_distill * (sum of exp(-a_i) * L_i + sum of a_i)

    The task keeps weight 1. For a constant loss the optimum is ``a_i = log(L_i)``, where the path contributes
    exactly 1: constants in front of a path matter only until then, and the gradient becomes that of ``log(L_i)``, with
    which :class:`~distill.aggregators.log_sum.LogSum` starts. A loss near zero hence gets a weight near infinity;
    ``max_weight`` bounds it. The bound moves ``a_i`` back after each step instead of clamping the weight in the
    forward pass: a clamped weight has no gradient, and could never come down again when the loss grows. A loss far
    above 1 pushes ``a_i`` far up in the first steps, from where it returns by at most ``alpha_distill`` times the
    learning rate a step (without momentum); set ``initial`` or ``learning_rate`` for such paths.

    Source: Chennupati et al. 2021 (arXiv:2110.09674); :func:`AdaptivePaper` is their exact form. It equals IMTL-L
    (Liu et al. 2021) with the sign of ``a`` flipped, and twice the uncertainty weighting of Kendall et al. 2018
    (arXiv:1705.07115). Departures from the paper's code, by default: no weight decay on the ``a_i``, which would pull
    all weights towards ``alpha_distill``, and a bounded weight.

    Args:
        granularity: what has a scalar of its own: each ``path``, each ``layer``, or groups of paths by name.
        alpha_distill: weight of all paths together, at least 0; 1 as in the paper.
        learning_rate: of the scalars, above 0; ``None`` for the optimiser's own, as in the paper.
        weight_decay: of the scalars, at least 0; ``None`` for the optimiser's own, as in the paper.
        max_weight: bound of ``alpha_distill * exp(-a_i)``, above 0; ``None`` for none, as in the paper.
        initial: where every ``a_i`` starts; 0, as in the paper, is weight ``alpha_distill``.
        modifiers: what changes the weights before they count.

    Raises:
        ValueError: an option is out of bounds, or the first weight exceeds ``max_weight``; at ``connect``: a path
            can be negative, whose weight would grow without end.
    """

    accepts_negative = False
    a: nn.Parameter

    def __init__(
        self,
        granularity: Granularity = "path",
        alpha_distill: float = 1.0,
        learning_rate: float | None = None,
        weight_decay: float | None = 0.0,
        max_weight: float | None = LARGE_WEIGHT,
        initial: float = 0.0,
        modifiers: Sequence[Modifier] = (),
    ) -> None:
        super().__init__(granularity, modifiers)
        self.alpha_distill = finite("alpha_distill", alpha_distill, at_least=0)
        self.learning_rate = None if learning_rate is None else finite("learning_rate", learning_rate, above=0)
        self.weight_decay = None if weight_decay is None else finite("weight_decay", weight_decay, at_least=0)
        self.max_weight = None if max_weight is None else finite("max_weight", max_weight, above=0)
        self.initial = finite("initial", initial)
        if self.max_weight is not None and self.initial < self._a_of(self.max_weight):
            raise ValueError(
                f"max_weight must be at least the first weight, alpha_distill * exp(-initial), found {max_weight} with "
                f"alpha_distill={alpha_distill} and initial={initial}"
            )
        self._steps_since_check = 0
        self._warned = False

    def allocate(self, num_keys: int) -> None:
        self.a = nn.Parameter(torch.full((num_keys,), self.initial))

    def forward(self, losses: Losses) -> Aggregate:
        weights = self.alpha_distill * torch.exp(-self.a)  # [key]
        total = losses.task + (weights * losses.paths).sum() + self.alpha_distill * self.a.sum()
        return Aggregate(total, weights.detach())

    @torch.no_grad()
    def after_step(self, again: Tensor | None = None) -> None:
        """Bring weights back to ``max_weight``; without a bound, warn once about a large one."""
        if self.max_weight is not None:
            self.a.clamp_(min=self._a_of(self.max_weight))
            return
        self._steps_since_check += 1
        if not self._warned and (self.a.device.type == "cpu" or self._steps_since_check >= STEPS_BETWEEN_CHECKS):
            self._steps_since_check = 0
            self._warn_of_large_weights()

    def parameter_options(self) -> dict[str, Any]:
        """Return ``lr`` and ``weight_decay`` where they are not the optimiser's own."""
        options = {"lr": self.learning_rate, "weight_decay": self.weight_decay}
        return {name: value for name, value in options.items() if value is not None}

    def _a_of(self, weight: float) -> float:
        """Return the ``a`` that gives ``weight``."""
        return math.log(self.alpha_distill / weight) if self.alpha_distill else -math.inf

    def _warn_of_large_weights(self) -> None:
        large = (self.a < self._a_of(LARGE_WEIGHT)).tolist()
        names = [key for key, is_large in zip(self.keys, large, strict=True) if is_large]
        if names:
            self._warned = True
            logger.warning(
                "the learned weight of %s has passed %g and has no bound: the loss is close to zero; "
                "Adaptive with max_weight bounds it",
                ", ".join(names),
                LARGE_WEIGHT,
            )


def AdaptivePaper(granularity: Granularity = "path") -> Adaptive:  # noqa: N802, named like the classes beside it in YAML
    """Adaptive in the exact form of the paper's code: a preset.

    The scalars start at 0 and share the optimiser's learning rate and weight decay; their weights have no bound, and
    a warning says once when one passes 1e4.

    Source: Chennupati et al. 2021 (arXiv:2110.09674) and its published code.

    Args:
        granularity: ``path``, or ``layer`` for the paper's layer-wise variant.
    """
    return Adaptive(granularity, learning_rate=None, weight_decay=None, max_weight=None)
