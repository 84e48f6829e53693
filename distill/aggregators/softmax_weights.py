"""Weights of a constant sum that are learned along with the student."""

from __future__ import annotations

from typing import Any, Unpack

import torch
from torch import Tensor, nn

from distill import distributed
from distill.aggregators.base import Aggregate, Aggregator, Common, Losses, weighted_sum
from distill.options import finite


class SoftmaxWeights(Aggregator):
    """Learns how a constant sum of weights is shared among the paths: one scalar ``theta_i`` a path.

    With ``n`` paths, and ``M_i`` the mean of ``L_i`` over all ranks::

        p = softmax(theta / temperature)
        total = L_task + alpha_distill * n * sum of p_i * L_i               what the student descends
        sum of p_i * log(M_i + epsilon) + entropy * sum of p_i * log(p_i)   what the theta_i descend

    If the scalars descended the student's own sum, they would put all weight on the path of the smallest loss, which
    needs it least and gets smaller still: nothing in a softmax keeps it from that. ``entropy`` does. For constant
    losses the optimum is then ``p_i`` in proportion to ``(M_i + epsilon) ** (-1 / entropy)``: with 1, every path
    contributes equally, as where :class:`~distill.aggregators.adaptive.Adaptive` settles, but the weights add up to
    ``alpha_distill * n`` however small the losses get, so that none grows without end. Above 1 the weights are more
    alike; with ``entropy: 0`` they collapse as said. By the logarithm, a constant in front of all losses changes
    nothing, and one in front of a single loss is undone.

    A loss of exactly 0, as that of a path that waits for its schedule, counts as average, or it would take all while it
    waits. A weight close to 0 changes slowly, as its ``theta_i`` moves with ``p_i``. Costs one small all-reduce a step.

    Source: learned weights in normalised form are common practice, as the normalisations of pathway weights in DistPro
    (arXiv:2204.05547); that learned weights need a regulariser is in Kendall et al. 2018 (arXiv:1705.07115) and Liebel
    and Koerner 2018 (arXiv:1805.06334). The entropy in its place, and the logarithms, are ours.

    Args:
        alpha_distill: mean weight of the paths, at least 0.
        entropy: how much alike the weights are held, at least 0.
        temperature: divides the scalars, above 0: a larger one learns more slowly, and ends at the same weights.
        epsilon: at least 1e-30, below which float32 ends; keeps a small loss from taking all.
        learning_rate: of the scalars, above 0; ``None`` for the optimiser's own.
        weight_decay: of the scalars, at least 0; ``None`` for the optimiser's own. It pulls towards equal weights.

    Raises:
        ValueError: an option is out of bounds; at ``connect``: a path can be negative, which has no logarithm.
    """

    accepts_negative = False
    separate = False
    theta: nn.Parameter  # [key]

    def __init__(
        self,
        alpha_distill: float = 1.0,
        entropy: float = 1.0,
        temperature: float = 1.0,
        epsilon: float = 1e-8,
        learning_rate: float | None = None,
        weight_decay: float | None = 0.0,
        **common: Unpack[Common],
    ) -> None:
        super().__init__(**common)
        self.alpha_distill = finite("alpha_distill", alpha_distill, at_least=0)
        self.entropy = finite("entropy", entropy, at_least=0)
        self.temperature = finite("temperature", temperature, above=0)
        self.epsilon = finite("epsilon", epsilon, at_least=1e-30)
        self.learning_rate = None if learning_rate is None else finite("learning_rate", learning_rate, above=0)
        self.weight_decay = None if weight_decay is None else finite("weight_decay", weight_decay, at_least=0)

    def allocate(self, num_keys: int) -> None:
        self.theta = nn.Parameter(torch.zeros(num_keys))

    def forward(self, losses: Losses) -> Aggregate:
        log_shares = torch.log_softmax(self.theta / self.temperature, dim=0)  # [key]
        shares = log_shares.exp()
        own = (shares * (self._log_losses(losses.paths) + self.entropy * log_shares)).sum()
        weights = self.alpha_distill * len(losses.paths) * shares
        aggregate = weighted_sum(losses, weights.to(losses.paths))
        # The scalars' own sum adds its gradient, and nothing to the value.
        return Aggregate(aggregate.total + (own - own.detach()), aggregate.weights)

    def parameter_options(self) -> dict[str, Any]:
        """Return ``lr`` and ``weight_decay`` where they are not the optimiser's own."""
        options = {"lr": self.learning_rate, "weight_decay": self.weight_decay}
        return {name: value for name, value in options.items() if value is not None}

    def _log_losses(self, paths: Tensor) -> Tensor:
        """Return the logarithms ``[key]``; where a loss is 0, the mean of the others' ones."""
        mean = distributed.mean(paths).clamp_min(0)  # below 0 only by rounding
        known = mean > 0
        logs = (mean + self.epsilon).log() * known
        return torch.where(known, logs, logs.sum() / known.sum().clamp_min(1))
