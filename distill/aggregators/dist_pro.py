"""Weights that are learned on samples which the student does not train on."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Unpack

import torch
from torch import Tensor

from distill import distributed
from distill.aggregators.base import Aggregate, Aggregator, Common, Losses, weighted_sum
from distill.aggregators.buffered_adam import BufferedAdam
from distill.aggregators.first_losses import FirstLosses
from distill.aggregators.initial_loss import EPSILON, EPSILON_OF_TASK
from distill.aggregators.needs import Needs
from distill.aggregators.period import Period
from distill.gradient_scope import ParameterScope, Scope, parameter_scope
from distill.options import finite, whole

BETAS = (0.5, 0.999)
"""Of the logits' Adam, as in DistPro's release."""

LARGEST_LOGIT = 7.0
"""A path gets at most e^7, about a thousand, times what is left undistilled, and at least a thousandth of it: a share
at 0 would have no slope, and could not come back."""

SMALLEST_SLOPE = 1e-30
"""Slopes are compared down to this size; Adam's usual 1e-8 would stop where gradients are small."""


class DistPro(Aggregator):
    """Learns the weights on held-out samples: moves them so that the student's next step lowers the task's loss there.

    With ``n`` paths, one logit ``theta_i`` a path, and ``F_i`` what its loss was at first (1 where not ``relative``)::

        p = softmax(theta_1, ..., theta_n, 0)                      the last share goes to no distillation
        total = L_task + sum of weight_i * L_i,    weight_i = alpha_distill * n * p_i / F_i

    The step that this leads to depends on the weights linearly, ``student' = student - lr * (g_task + sum of weight_i *
    g_i)``, so that the slope of the loss ``H`` of held-out samples at the new student is known without a second
    derivative; a path gains weight where it pulled to where ``H`` falls::

        dH(student') / dweight_i = -lr * <gradient of H at student', g_i at student>
        theta: one step of Adam(learning_rate, 0.5, 0.999) against the slope of H in theta, every ``every`` steps

    Held out is a share of the *training* images, the same for all runs of a split: validation stays what selects, and
    the student trains on fewer images. So the weights are best learned in one run, and replayed over all images in
    others by :class:`~distill.aggregators.replay.Replay`, from this run's trajectory.

    What is exact: for SGD in ``scope: all``, with momentum and weight decay too, but not clipped, the slope is that of
    the step just made, up to a factor, and a constant factor means nothing to Adam. What is not: the learning rate, a
    factor that changes from step to step, is left out; an optimiser with a scale for each parameter, as Adam, is taken
    for SGD; what a step does beyond the next one is not seen. Where ``clip_norm`` clips a step its length is fixed, and
    a weight can only turn it: the true slope loses what lies along the total gradient, ours does not, so that paths
    parallel to the total gradient are overrated. Under modifiers the slope is that of the weights before them. With
    ``scope: last`` the slope is that of the last stage's part of the step alone, and a path that acts before it has
    none: hence ``all``, and ``every`` to pay for it.

    A path whose gradient is zero throughout, as one that waits for its schedule, is no evidence, although its slope is
    one: its share does nothing yet. Its logit and Adam's moments stay, so that it keeps its odds against no
    distillation, and the others are compared among themselves, by the slope under which its share stays: the mean
    that they are held against, ``sum of p_j <gradient of H, g_j>``, is taken over their shares and the last one, scaled
    to add up to 1. Compared with it, all would seem to do good, and it would starve before it has begun.

    Held-out images tell only what the student has not seen. With ``split.teacher: same`` the *teacher* has trained on
    them, and the slope credits distillation with what it memorised of their labels: use ``teacher: rest``.

    Each share is bounded, so that ``weight_i * F_i`` lies between 0 and ``alpha_distill * n`` whatever the losses do.
    Slopes that are not finite change nothing. A look costs a backward pass as deep as the scope for the task and for
    each path, then a forward and a backward pass of the student on a held-out batch, and memory for ``1 + 2 * n``
    gradients; other steps cost one small all-reduce.

    Source: DistPro (Deng et al. 2022, arXiv:2204.05547) and its release: the slot of no distillation, the sum ``n``,
    Adam at 0.1, a fifth of the images held out. Departures: the release estimates the slope by finite differences
    around a copied student before each step, where ours is exact and reads the step that is made anyway, so that new
    weights count from the next batch on; ``every``; logits stop at -7 and 7; paths are compared relative to their first
    losses; held-out images are not augmented.

    Args:
        alpha_distill: ``n`` times this is what the paths and no distillation share, at least 0.
        held_out: share of the training images that is held out, above 0 and below 1.
        scope: the parameters whose gradients count: ``all`` of the student, or its ``last`` stage.
        every: steps from one look to the next, at least 1; with accumulation, all batches of such a step are looked at.
        learning_rate: of the logits, above 0.
        relative: whether losses are divided by what they were at first, with the floors of
            :class:`~distill.aggregators.initial_loss.InitialLoss`; a constant in front of a path then does not count.
        over: batches whose mean is the first loss, at least 1.

    Raises:
        ValueError: an option is out of bounds; after a step that was due: there are no held-out gradients.
    """

    separate = False
    _logits: Tensor  # [key]

    def __init__(
        self,
        alpha_distill: float = 1.0,
        held_out: float = 0.2,
        scope: ParameterScope = "all",
        every: int = 10,
        learning_rate: float = 0.1,
        relative: bool = True,
        over: int = 10,
        **common: Unpack[Common],
    ) -> None:
        super().__init__(**common)
        self.alpha_distill = finite("alpha_distill", alpha_distill, at_least=0)
        self.held_out = finite("held_out", held_out, above=0, below=1)
        self.scope = parameter_scope(scope)
        self.every = whole("every", every, at_least=1)
        self.learning_rate = finite("learning_rate", learning_rate, above=0)
        self.relative = relative
        self.over = whole("over", over, at_least=1)
        self.period = Period(self.every)
        self._pulls: Tensor | None = None  # [key, parameter]: what a share of 1 would add to this step's gradient

    @property
    def own_needs(self) -> Needs:
        scopes = frozenset[Scope]({self.scope})
        return Needs(gradients=scopes, held_out=self.held_out, held_out_gradients=scopes)

    @property
    def wants_held_out(self) -> bool:
        """Whether the weights move behind this step; a student alone has none."""
        return bool(self.keys) and self.period.is_due

    def allocate(self, num_keys: int) -> None:
        self.register_buffer("_logits", torch.zeros(num_keys, dtype=torch.float64))
        self.adam = BufferedAdam(num_keys, self.learning_rate, epsilon=SMALLEST_SLOPE, betas=BETAS)
        if self.relative:
            self.first = FirstLosses(num_keys, self.over, EPSILON, EPSILON_OF_TASK)

    def advance(self, progress: float) -> None:
        super().advance(progress)
        self._pulls = None  # of a batch that led to no step, as a trial before the training

    def forward(self, losses: Losses) -> Aggregate:
        factors = self._factors(losses)
        if self.training and self.wants_held_out:
            pulls = factors[:, None] * losses.shared(self.scope).rows()[1:]
            self._pulls = pulls if self._pulls is None else self._pulls + pulls
        return weighted_sum(losses, factors * self._shares().to(factors))

    @torch.no_grad()
    def after_step(self, again: Tensor | None = None, held_out: Mapping[Scope, Tensor] | None = None) -> None:
        """Move the logits by what the step, and each path in it, did to the held-out loss."""
        is_due, pulls = self.wants_held_out, self._pulls
        if is_due and held_out is None:
            raise ValueError(
                "DistPro learns from held-out samples: where wants_held_out, give after_step "
                "held_out=distiller.held_out_gradients(batch) of a batch that no step trains on"
            )
        self.period.advance()
        self._pulls = None
        if is_due and held_out is not None and pulls is not None:
            self._learn(pulls, held_out[self.scope])

    def _learn(self, pulls: Tensor, held_out: Tensor) -> None:
        """Make a step against the slope of the held-out loss, as it is in units of the student's learning rate."""
        shares = self._shares()
        falls = torch.stack([(pull.double() * held_out.double()).sum() for pull in pulls])  # [key]
        pulling = pulls.any(dim=1)
        mean = (shares * falls).sum() / (1 - (shares * ~pulling).sum())  # the slot's own fall is 0
        slopes = -shares * (falls - mean)
        self.adam(self._logits, slopes, counts=pulling & slopes.isfinite().all())
        self._logits.clamp_(-LARGEST_LOGIT, LARGEST_LOGIT)

    def _factors(self, losses: Losses) -> Tensor:
        """Return ``[key]``, what the shares are multiplied by."""
        total = self.alpha_distill * len(losses.paths)
        if not self.relative:
            return torch.full_like(losses.paths.detach(), total)
        means = distributed.mean(torch.cat([losses.paths, losses.task.reshape(1)]))
        factors: Tensor = total / self.first(means)
        return factors

    def _shares(self) -> Tensor:
        """Return the share ``[key]`` of each path; what is missing to 1 is left undistilled."""
        return torch.softmax(torch.cat([self._logits, self._logits.new_zeros(1)]), dim=0)[:-1]
