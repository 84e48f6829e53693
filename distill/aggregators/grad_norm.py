"""Weights under which the gradients of all losses are equally long."""

from __future__ import annotations

from typing import Unpack

import torch
from torch import Tensor

from distill import distributed
from distill.aggregators.base import Aggregate, Aggregator, Common, Losses
from distill.aggregators.buffered_adam import BufferedAdam
from distill.aggregators.needs import Needs
from distill.aggregators.period import Period
from distill.aggregators.with_task import sum_of_weighed, weighed
from distill.gradient_scope import ParameterScope, parameter_scope
from distill.options import finite, whole

SMALLEST_SHARE = 1e-3
"""No weight falls below this before all are scaled to their sum: one at 0 would be stuck, or turn negative."""

SMALLEST_LENGTH = 1e-30
"""Gradients are compared down to this length; Adam's usual 1e-8 would hold the weight of a faint loss where it is."""


class GradNorm(Aggregator):
    """Gradient normalisation: moves the weights until all losses pull equally hard, those that lag behind harder.

    With ``n`` losses, ``g_i`` the length of the gradient of ``L_i`` in the chosen parameters, ``M_i`` the mean of
    ``L_i`` over all ranks and ``F_i`` its first one::

        total = L_task + alpha_distill * sum of w_i * L_i
        r_i = (M_i / F_i) / mean of (M_j / F_j)                        relative inverse training rate
        descended by w: sum of |w_i g_i - T_i|,   T_i = (mean of w_j g_j) * r_i ** alpha, a constant

    by one step of Adam every ``every`` steps, after which the weights are scaled to add up to ``n``, and start to
    count with the next batch. All gradients of a look are means over the ranks, those of the whole batch.

    A loss without a gradient in these parameters is left out of the means, and its weight moves with the sum alone; one
    that was never above 0 has no rate, and counts as average. A look at what is not finite changes nothing. A path
    whose schedule ramps it up from almost 0 seems to lag behind ever after: give such paths a step instead, or
    ``alpha: 0``. Weights lie between about ``0.001`` and ``alpha_distill * n`` whatever the losses do. A look costs a
    backward pass a loss and one for the task, as deep as the scope, and memory for as many gradients.

    Source: Chen et al. 2018 (arXiv:1711.02257), algorithm 1. Departures: the task keeps weight 1
    unless ``include_task``; Adam of its own, as a step in proportion to ``g_i`` diverges where losses are large; looks
    every ``every`` steps; a weight is kept above 0.

    Args:
        alpha_distill: mean weight of the paths, at least 0.
        alpha: how much harder those that lag behind pull, at least 0; 1.5 is the paper's choice for
            scenes (NYUv2). 0: all alike.
        scope: the parameters whose gradients count: the student's ``last`` stage, or ``all``.
        every: steps from one look to the next, at least 1; with accumulation, all batches of such a step are looked at.
        learning_rate: of the weights, above 0.
        include_task: whether the task is one of the ``n`` losses, as in the paper; ``alpha_distill`` never
            multiplies its weight.

    Raises:
        ValueError: an option is out of bounds; at ``connect``: a path can be negative, which has no rate.
    """

    accepts_negative = False
    separate = False
    _weights: Tensor  # [loss]
    _first: Tensor  # [loss]: 0 as long as it was not above 0

    def __init__(
        self,
        alpha_distill: float = 1.0,
        alpha: float = 1.5,
        scope: ParameterScope = "last",
        every: int = 10,
        learning_rate: float = 0.025,
        include_task: bool = False,
        **common: Unpack[Common],
    ) -> None:
        super().__init__(**common)
        self.alpha_distill = finite("alpha_distill", alpha_distill, at_least=0)
        self.alpha = finite("alpha", alpha, at_least=0)
        self.scope = parameter_scope(scope)
        self.every = whole("every", every, at_least=1)
        self.learning_rate = finite("learning_rate", learning_rate, above=0)
        self.weighs_task = include_task
        self.period = Period(self.every)
        self._looks = False

    @property
    def own_needs(self) -> Needs:
        return Needs(gradients=frozenset({self.scope}))

    def allocate(self, num_keys: int) -> None:
        num_losses = num_keys + self.weighs_task
        self.register_buffer("_weights", torch.ones(num_losses, dtype=torch.float64))
        self.register_buffer("_first", torch.zeros(num_losses, dtype=torch.float64))
        self.adam = BufferedAdam(num_losses, self.learning_rate, epsilon=SMALLEST_LENGTH)

    def advance(self, progress: float) -> None:
        super().advance(progress)
        self._looks = self.period.is_due
        self.period.advance()

    def forward(self, losses: Losses) -> Aggregate:
        aggregate = sum_of_weighed(losses, self._weights.clone(), alpha_distill=self.alpha_distill)
        if self.training and len(self._weights):
            mean = distributed.mean(weighed(losses, include_task=self.weighs_task)).to(self._first)
            known = (self._first > 0) | ~mean.isfinite()
            self._first.copy_(torch.where(known, self._first, mean))
            if self._looks:
                self._look(losses.shared(self.scope).lengths()[0 if self.weighs_task else 1 :], mean)
        return aggregate

    @torch.no_grad()
    def _look(self, lengths: Tensor, mean: Tensor) -> None:
        """Move the weights by the lengths ``[loss]`` of the gradients."""
        pulls = self._weights * lengths
        pulling = lengths > 0
        target = _mean_of(pulls, pulling) * self._rates(mean) ** self.alpha
        gradient = lengths * (pulls - target).sign()
        self.adam(self._weights, gradient, counts=(gradient.isfinite() & mean.isfinite()).all())
        weights = self._weights.clamp_min(SMALLEST_SHARE)
        self._weights.copy_(weights * (len(weights) / weights.sum()))

    def _rates(self, mean: Tensor) -> Tensor:
        """Return the relative inverse training rates ``[loss]``; 1 where there is none."""
        known = self._first > 0
        left = torch.where(known, mean / self._first.masked_fill(~known, 1.0), 1.0)
        average = _mean_of(left, known)
        return torch.where(known & (average > 0), left / average.clamp_min(torch.finfo(torch.float64).tiny), 1.0)


def _mean_of(values: Tensor, chosen: Tensor) -> Tensor:
    """Return the mean of the chosen ones; 0 where there are none."""
    return (values * chosen).sum() / chosen.sum().clamp_min(1)
