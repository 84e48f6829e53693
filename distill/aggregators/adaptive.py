"""Weights that are learned along with the student."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from distill.aggregators.base import Aggregate, Granularity, Losses
from distill.aggregators.learned_scale import LARGE_WEIGHT, Initial, LearnedScale
from distill.aggregators.modifiers.base import Modifier


class Adaptive(LearnedScale):
    """Learns how much each path counts: one scalar ``a_i`` a path (or a layer), trained with the student.

    The weight of a path is ``alpha_distill * exp(-a_i)``, and the sum of the ``a_i`` keeps it from vanishing::

        total = L_task + alpha_distill * (sum of exp(-a_i) * L_i + sum of a_i)

    The task keeps weight 1. For a constant loss the optimum is ``a_i = log(L_i)``, where the path contributes
    exactly 1: constants in front of a path matter only until then, and the gradient becomes that of ``log(L_i)``, with
    which :class:`~distill.aggregators.log_sum.LogSum` starts. A loss near zero hence gets a weight near infinity;
    ``max_weight`` bounds it. The bound moves ``a_i`` back after each step instead of clamping the weight in the
    forward pass: a clamped weight has no gradient, and could never come down again when the loss grows. A loss far
    above 1 pushes ``a_i`` far up in the first steps, from where it returns by at most ``alpha_distill`` times the
    learning rate a step (without momentum): with SGD at 0.1, a loss of 1,000 sends its scalar to 955, and the path is
    switched off for a thousand steps. ``initial: log_loss`` starts every ``a_i`` where it is going, at the logarithm of
    its loss (the mean over the ranks) in the first batch of the training in which that loss is above 0, no further down
    than ``max_weight`` (without a bound: than weight 1e4) allows. Costs one number a loss, and with ``initial:
    log_loss`` one small all-reduce a step.

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
        initial: where every ``a_i`` starts; 0, as in the paper, is weight ``alpha_distill``; ``log_loss``: at the
            logarithm of its first loss, where the path contributes ``alpha_distill``.
        modifiers: what changes the weights before they count.

    Raises:
        ValueError: an option is out of bounds, or the first weight exceeds ``max_weight``; at ``connect``: a path
            can be negative, whose weight would grow without end.
    """

    def __init__(
        self,
        granularity: Granularity = "path",
        alpha_distill: float = 1.0,
        learning_rate: float | None = None,
        weight_decay: float | None = 0.0,
        max_weight: float | None = LARGE_WEIGHT,
        initial: Initial = 0.0,
        modifiers: Sequence[Modifier] = (),
    ) -> None:
        super().__init__(
            alpha_distill,
            learning_rate,
            weight_decay,
            max_weight,
            initial,
            granularity=granularity,
            modifiers=modifiers,
        )

    def scales(self, num_keys: int) -> list[float]:
        return [self.alpha_distill] * num_keys

    def forward(self, losses: Losses) -> Aggregate:
        a = self.scalars(losses.paths)  # [key]
        weights = self.alpha_distill * torch.exp(-a)
        total = losses.task + (weights * losses.paths).sum() + self.alpha_distill * a.sum()
        return Aggregate(total, weights.detach())


def AdaptivePaper(granularity: Granularity = "path") -> Adaptive:  # noqa: N802, named like the classes beside it in YAML
    """Adaptive in the exact form of the paper's code: a preset.

    The sum to descend, by student and scalars alike::

        total = L_task + sum of (exp(-a_i) * L_i + a_i)                 weight_i = exp(-a_i)

    The scalars start at 0 and share the optimiser's learning rate and weight decay; their weights have no bound, and
    a warning says once when one passes 1e4. It takes no modifiers, and no ``alpha_distill``: with one of them it would
    no longer be the paper's; that is Adaptive with ``learning_rate``, ``weight_decay`` and ``max_weight`` at ``None``.
    Costs one number a loss: no further pass, no all-reduce.

    Source: Chennupati et al. 2021 (arXiv:2110.09674) and its published code.

    Args:
        granularity: ``path``, or ``layer`` for the paper's layer-wise variant.
    """
    return Adaptive(granularity, learning_rate=None, weight_decay=None, max_weight=None)
