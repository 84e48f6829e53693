"""One learned scalar a loss, whose exponential is its weight: what Adaptive and UncertaintyWeighting share."""

from __future__ import annotations

import logging
import math
from abc import abstractmethod
from collections.abc import Mapping
from typing import Any, Literal, Unpack

import torch
from torch import Tensor, nn

from distill import distributed
from distill.aggregators.base import Aggregator, Common
from distill.gradient_scope import Scope
from distill.options import finite

logger = logging.getLogger(__name__)

LARGE_WEIGHT = 1e4
"""An unbounded weight above this is reported: by then one path's noise can outweigh everything else."""
STEPS_BETWEEN_CHECKS = 100
"""Reading a weight makes the GPU wait, so there it is looked at this seldom; weights drift slowly."""

Initial = float | Literal["log_loss"]
"""Where the scalars start: at a number, or each at the logarithm of its first loss."""


class LearnedScale(Aggregator):
    """Weighs losses by ``scale * exp(-a_i)`` with learned ``a_i``; subclasses say of which sum the ``a_i`` learn.

    Args:
        alpha_distill: weight of all paths together, at least 0.
        learning_rate: of the scalars, above 0; ``None`` for the optimiser's own.
        weight_decay: of the scalars, at least 0; ``None`` for the optimiser's own.
        max_weight: bound of every weight, above 0; ``None`` for none.
        initial: where every ``a_i`` starts; ``log_loss``: at the logarithm of its first loss above 0.

    Raises:
        ValueError: an option is out of bounds, or the first weight exceeds ``max_weight``; at ``connect``: a path
            can be negative, whose weight would grow without end.
    """

    accepts_negative = False
    a: nn.Parameter  # [scalar]
    _scales: Tensor  # [scalar]: the weights at a = 0
    _lowest: Tensor  # [scalar]: the a of max_weight, or of a weight to be reported
    _begun: Tensor  # [scalar]: whether the start at log_loss was made

    def __init__(
        self,
        alpha_distill: float,
        learning_rate: float | None,
        weight_decay: float | None,
        max_weight: float | None,
        initial: Initial,
        **common: Unpack[Common],
    ) -> None:
        super().__init__(**common)
        self.alpha_distill = finite("alpha_distill", alpha_distill, at_least=0)
        self.learning_rate = None if learning_rate is None else finite("learning_rate", learning_rate, above=0)
        self.weight_decay = None if weight_decay is None else finite("weight_decay", weight_decay, at_least=0)
        self.max_weight = None if max_weight is None else finite("max_weight", max_weight, above=0)
        self.initial: Initial = "log_loss" if initial == "log_loss" else finite("initial", initial)
        self._steps_since_check = 0
        self._warned = False
        scales = self.scales(1)
        if self.max_weight is not None and self.initial != "log_loss":
            lowest = max(_a_of(self.max_weight, scale) for scale in scales)
            if self.initial < lowest:
                raise ValueError(
                    f"max_weight must be at least the first weight, {max(scales):g} * exp(-initial), found "
                    f"{self.max_weight:g} with alpha_distill: {self.alpha_distill:g} and initial: {self.initial:g}"
                )

    @abstractmethod
    def scales(self, num_keys: int) -> list[float]:
        """Return the weight at ``a = 0`` of everything that has a scalar."""

    def allocate(self, num_keys: int) -> None:
        scales = self.scales(num_keys)
        bound = LARGE_WEIGHT if self.max_weight is None else self.max_weight
        lowest = torch.tensor([_a_of(bound, scale) for scale in scales])
        from_losses = self.initial == "log_loss"
        self.a = nn.Parameter(torch.full((len(scales),), 0.0 if self.initial == "log_loss" else self.initial))
        self.register_buffer("_scales", torch.tensor(scales), persistent=False)
        self.register_buffer("_lowest", lowest, persistent=False)
        self.register_buffer("_begun", torch.full((len(scales),), not from_losses), persistent=from_losses)

    def scalars(self, losses: Tensor) -> Tensor:
        """Return the ``a`` of these losses ``[scalar]``, started where this is their first batch above 0.

        What has not started gets no gradient: the momentum of a loss of zero would be that of an endless fall.
        """
        if self.initial != "log_loss":
            return self.a
        if self.training:
            self._begin(losses)
        begun = self._begun.clone()  # what a backward pass keeps must not change at the next batch
        return torch.where(begun, self.a, self.a.detach())

    @torch.no_grad()
    def after_step(self, again: Tensor | None = None, held_out: Mapping[Scope, Tensor] | None = None) -> None:
        """Bring weights back to ``max_weight``; without a bound, warn once about a large one."""
        if self.max_weight is not None:
            self.a.clamp_(min=self._lowest)
            return
        self._steps_since_check += 1
        if not self._warned and (self.a.device.type == "cpu" or self._steps_since_check >= STEPS_BETWEEN_CHECKS):
            self._steps_since_check = 0
            self._warn_of_large_weights()

    def parameter_options(self) -> dict[str, Any]:
        """Return ``lr`` and ``weight_decay`` where they are not the optimiser's own."""
        options = {"lr": self.learning_rate, "weight_decay": self.weight_decay}
        return {name: value for name, value in options.items() if value is not None}

    @torch.no_grad()
    def _begin(self, losses: Tensor) -> None:
        mean = distributed.mean(losses).to(self.a)
        begins = ~self._begun & (mean > 0) & mean.isfinite()
        first = mean.log().maximum(self._lowest)
        self.a.copy_(torch.where(begins, first, self.a))
        self._begun.copy_(self._begun | begins)

    def _warn_of_large_weights(self) -> None:
        large = (self.a < self._lowest).tolist()
        owners = self.keys if len(large) == len(self.keys) else ("task", *self.keys)
        names = [owner for owner, is_large in zip(owners, large, strict=True) if is_large]
        if names:
            self._warned = True
            logger.warning(
                "the learned weight of %s has passed %g and has no bound: the loss is close to zero; "
                "%s with max_weight bounds it",
                ", ".join(names),
                LARGE_WEIGHT,
                type(self).__name__,
            )


def _a_of(weight: float, scale: float) -> float:
    """Return the ``a`` that gives ``weight``."""
    return math.log(scale / weight) if scale else -math.inf
