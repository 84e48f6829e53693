"""What adaptive weights converge to, without anything to learn."""

from __future__ import annotations

from collections.abc import Sequence

from distill import distributed
from distill.aggregators.base import Aggregate, Aggregator, Granularity, Losses
from distill.aggregators.modifiers.base import Modifier
from distill.options import finite


class LogSum(Aggregator):
    """Descends the logarithm of every path's loss, so that only relative progress counts.

    The sum to descend, and what multiplies each loss in its gradient::

        total = L_task + alpha_distill * sum of log(M_i + epsilon)      M_i: mean of L_i over all ranks
        weight_i = alpha_distill / (M_i + epsilon)

    No constant in front of a path changes the gradient. ``epsilon`` keeps value and weight finite when a loss is zero:
    the weight ends at ``alpha_distill / epsilon``. The weights are constants of the step and computed from the mean
    over the ranks, so that all ranks agree and the averaged gradient is that of the whole batch: the mean of the
    ranks' logarithms would have another one. Under gradient accumulation the logarithm is of each micro-batch. A loss
    that rounding brought below 0 counts as 0. Costs one small all-reduce a batch.

    Source: the equilibrium of :class:`~distill.aggregators.adaptive.Adaptive` (``a_i = log(L_i)``; IMTL-L of Liu et al.
    2021 has the same one), known as scale-invariant linear scalarisation in Navon et al. 2022 (arXiv:2202.01017).

    Args:
        granularity: whose summed loss a logarithm is taken of: each ``path``, each ``layer``, or groups by name.
        alpha_distill: weight of all paths together, at least 0; 1 as in the paper.
        epsilon: at least 1e-30, below which float32 ends; the default is far below any loss that a path of ours takes
            on during training.
        modifiers: what changes the weights before they count.

    Raises:
        ValueError: an option is out of bounds; at ``connect``: a path can be negative, which has no logarithm.
    """

    accepts_negative = False

    def __init__(
        self,
        granularity: Granularity = "path",
        alpha_distill: float = 1.0,
        epsilon: float = 1e-8,
        modifiers: Sequence[Modifier] = (),
    ) -> None:
        super().__init__(granularity, modifiers)
        self.alpha_distill = finite("alpha_distill", alpha_distill, at_least=0)
        self.epsilon = finite("epsilon", epsilon, at_least=1e-30)

    def forward(self, losses: Losses) -> Aggregate:
        mean = distributed.mean(losses.paths).clamp_min(0) + self.epsilon  # [key]
        weights = self.alpha_distill / mean
        descended = (weights * losses.paths).sum()
        value = self.alpha_distill * mean.log().sum()
        # The value of the logarithms with the gradient of the weighted sum.
        return Aggregate(losses.task + value + (descended - descended.detach()), weights)
