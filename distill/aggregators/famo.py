"""Weights by what the last step did to each loss."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Unpack

import torch
from torch import Tensor

from distill import distributed
from distill.aggregators.base import Aggregate, Aggregator, Common, Losses, weighted_sum
from distill.aggregators.buffered_adam import BufferedAdam
from distill.aggregators.needs import Needs
from distill.gradient_scope import Scope
from distill.options import finite


class FAMO(Aggregator):
    """Fast adaptive multitask optimisation: steers towards all losses falling at the same relative rate.

    With ``M_i`` the mean of ``L_i`` over all ranks, the weights of a step come from one logit ``w_i`` a path::

        z = softmax(w)
        c = 1 / sum of z_i / (M_i + epsilon)
        total = L_task + sum of weight_i * L_i,      weight_i = alpha_distill * c * z_i / (M_i + epsilon)

    which is the gradient of ``c * sum of z_i * log(L_i + epsilon)``; the weights add up to ``alpha_distill``. After the
    optimiser's step the losses of the same batch are looked at once more, ``M_i'``, and the logits descend what the
    step brought, so that a path that fell faster than the others loses weight::

        delta_i = log(M_i + epsilon) - log(M_i' + epsilon)
        gradient of w_i = z_i * (delta_i - sum of z_j * delta_j)      one step of Adam(learning_rate), decay gamma

    Weights stay between 0 and ``alpha_distill`` whatever the losses do. The closer to 0 a loss comes, the more of that
    it takes from the others; one of exactly 0, as that of a path that waits for its schedule, takes none. A batch in
    which a loss is not finite, before the step or behind it, moves no logit.

    Costs a further forward pass of the student a step, and a copy of its buffers (see
    :meth:`~distill.distiller.Distiller.look_again`), but no gradients of the paths apart. With accumulation, the last
    of a step's batches is the one that is looked at twice.

    Source: Liu et al. 2023 (arXiv:2306.03792), algorithm 2; its learning rate 0.025 and ``gamma`` 0.001 (the published
    code has 1e-5). Departures: the task is not among the losses; their lower bound is 0, which it is for every path
    that is never negative; what is descended has the value of the weighted sum, with the same gradient.

    Args:
        alpha_distill: weight of all paths together, at least 0. Equal's sum is the number of paths.
        learning_rate: of the logits, above 0.
        gamma: weight decay of the logits, at least 0.
        epsilon: above 0; bounds what a small loss is divided by, and its logarithm.

    Raises:
        ValueError: an option is out of bounds; at ``connect``: a path can be negative, which has no logarithm; after a
            step: the losses were not looked at again.
    """

    accepts_negative = False
    separate = False
    _logits: Tensor  # [key]
    _before: Tensor  # [key]: the losses before the step

    def __init__(
        self,
        alpha_distill: float = 1.0,
        learning_rate: float = 0.025,
        gamma: float = 1e-3,
        epsilon: float = 1e-8,
        **common: Unpack[Common],
    ) -> None:
        super().__init__(**common)
        self.alpha_distill = finite("alpha_distill", alpha_distill, at_least=0)
        self.learning_rate = finite("learning_rate", learning_rate, above=0)
        self.gamma = finite("gamma", gamma, at_least=0)
        self.epsilon = finite("epsilon", epsilon, above=0)

    @property
    def own_needs(self) -> Needs:
        return Needs(second_look=True)

    def allocate(self, num_keys: int) -> None:
        self.register_buffer("_logits", torch.zeros(num_keys, dtype=torch.float64))
        self.register_buffer("_before", torch.zeros(num_keys, dtype=torch.float64))
        self.adam = BufferedAdam(num_keys, self.learning_rate, self.gamma)

    def forward(self, losses: Losses) -> Aggregate:
        mean = distributed.mean(losses.paths).to(self._logits).clamp_min(0)  # [key]; below 0 only by rounding
        if self.training:
            self._before.copy_(mean)
        shares = torch.softmax(self._logits, dim=0) / (mean + self.epsilon) * (mean > 0)
        weights = self.alpha_distill * shares / shares.sum().clamp_min(torch.finfo(shares.dtype).tiny)
        return weighted_sum(losses, weights.to(losses.paths))

    @torch.no_grad()
    def after_step(self, again: Tensor | None = None, held_out: Mapping[Scope, Tensor] | None = None) -> None:
        """Move the logits by what the step did to the losses."""
        if again is None:
            raise ValueError("FAMO learns from the losses after the step: give after_step the same batch's once more")
        shares = torch.softmax(self._logits, dim=0)
        delta = (self._before + self.epsilon).log() - (again.to(self._before).clamp_min(0) + self.epsilon).log()
        self.adam(self._logits, shares * (delta - (shares * delta).sum()))
