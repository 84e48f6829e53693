"""The path that lags most, smoothly."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Unpack

import torch
from torch import Tensor

from distill import distributed
from distill.aggregators.base import Aggregate, Aggregator, Common, Losses
from distill.aggregators.first_losses import FirstLosses
from distill.aggregators.initial_loss import EPSILON, EPSILON_OF_TASK
from distill.aggregators.names import check_names
from distill.options import finite, whole


class Chebyshev(Aggregator):
    """Descends a smooth maximum of the paths, so that the one that lags most counts most.

    With ``M_i`` the mean over all ranks of ``L_i``, ``F_i`` what it was at first, and ``mu`` the temperature::

        z_i      = w_i * M_i / F_i                           relative: false: z_i = w_i * M_i
        total    = L_task + alpha_distill * mu * log(sum of exp(z_i / mu))
        weight_i = alpha_distill * softmax(z / mu)_i * w_i / F_i

    A small ``mu`` leaves all to the largest ``z_i``, a large one treats all alike. The shares sum to 1, so that all
    paths together count as much as one does under :class:`~distill.aggregators.initial_loss.InitialLoss`. Paths differ
    in scale by orders of magnitude, and the largest of unscaled losses is that of the loudest path: hence
    ``relative``, under which the path counts that has made least progress. The weights are constants of the step and
    alike on all ranks; a loss below 0 has little weight, however far it falls. First losses have the floors of
    ``InitialLoss``: a path that starts at 0 takes all shares as soon as it does not stay there. Costs one small
    all-reduce a batch.

    Source: smooth Tchebycheff scalarization (STCH) of Lin et al. 2024 (arXiv:2402.19078), with the ideal point 0.
    Departures: relative losses are ours, where the authors' multi-task code takes logarithms of losses over their means
    in a warm-up; ``w_i`` is 1 by default, not ``1 / n``, so that one path alone counts as it does elsewhere; the task
    is not one of the objectives.

    Args:
        temperature: ``mu``, at least 1e-6; the paper tries 0.01 to 1.
        weights: ``w_i``, at least 0, for each path by its name; 1 each by default.
        alpha_distill: weight of all paths together, at least 0.
        relative: whether losses are divided by what they were at first.
        over: batches whose mean is the first loss, at least 1.

    Raises:
        ValueError: an option is out of bounds; at ``connect``: a path has no weight, or a weight no path.
    """

    separate = False
    values: Tensor  # [key]

    def __init__(
        self,
        temperature: float = 0.1,
        weights: Mapping[str, float] | None = None,
        alpha_distill: float = 1.0,
        relative: bool = True,
        over: int = 10,
        **common: Unpack[Common],
    ) -> None:
        super().__init__(**common)
        self.temperature = finite("temperature", temperature, at_least=1e-6)
        self.weights = (
            None
            if weights is None
            else {name: finite(f"weights.{name}", weight, at_least=0) for name, weight in weights.items()}
        )
        self.alpha_distill = finite("alpha_distill", alpha_distill, at_least=0)
        self.relative = relative
        self.over = whole("over", over, at_least=1)

    def allocate(self, num_keys: int) -> None:
        weights = dict.fromkeys(self.keys, 1.0) if self.weights is None else self.weights
        check_names("weights", "weight", weights, self.keys, kind=self.key_kind)
        # Not persistent: an option, not something learned.
        self.register_buffer("values", torch.tensor([weights[key] for key in self.keys]), persistent=False)
        if self.relative:
            self.first = FirstLosses(num_keys, self.over, EPSILON, EPSILON_OF_TASK)

    def forward(self, losses: Losses) -> Aggregate:
        means = distributed.mean(torch.cat([losses.paths, losses.task.reshape(1)]))
        paths = means[:-1]
        factors = self.values.to(paths)
        if self.relative:
            factors = factors / self.first(means)
        if not self.keys:
            return Aggregate(losses.task + losses.paths.sum(), paths)
        scaled = factors * paths
        largest = scaled.max()  # taken out first: what is divided by the temperature is at most 0, and cannot overflow
        distances = (scaled - largest) / self.temperature
        weights = self.alpha_distill * factors * distances.softmax(dim=0)
        value = self.alpha_distill * (largest + self.temperature * distances.logsumexp(dim=0))
        descended = (weights * losses.paths).sum()
        # The value of the smooth maximum with the gradient of the weighted sum.
        return Aggregate(losses.task + value + (descended - descended.detach()), weights)
