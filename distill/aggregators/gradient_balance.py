"""Weights from the gradients of task and paths, by the methods of multi-objective optimisation."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Unpack

import torch
from torch import Tensor

from distill import distributed
from distill.aggregators.base import Aggregate, Common, Losses
from distill.aggregators.gradient_method import GradientMethod
from distill.aggregators.multi_objective import WEIGHTINGS, exact_gram
from distill.gradient_scope import ParameterScope
from distill.options import finite, whole


class GradientBalance(GradientMethod):
    """Weighs task and paths as a method of multi-objective optimisation would, by their gradients.

    With ``G`` the rows of gradients, the task's first, and ``w`` what the method makes of them::

        total = w_0 * L_task + sum of w_i * L_i            w = method(G), or method(G G^T)

    The weights hold for the whole student, whichever parameters the gradients are taken in. They are not taken at the
    ``taps``: an activation's gradient is one of this rank's own samples, and each path has an activation, and so a
    space, of its own, in which the others have no row to be combined with. What the methods do:

    - ``PCD`` follows the task, the primary objective, as closely as it can while each path gets at least the share
      ``tau`` of the progress that it would make alone;
    - ``MGDA`` looks for the shortest mean of all gradients, which harms none: nearly all weight goes to the *shortest*
      gradient, and paths of different scale switch one another off; with ``normalize_rows`` less so;
    - ``PCGrad``, ``GradVac``, ``UPGrad``, ``DualProj`` and ``CAGrad`` (``c``) take conflict out of a sum or mean;
    - ``IMTLG`` and ``AlignedMTL`` equalise projections or principal components, ``NashMTL`` and ``FairGrad``
      (``alpha``) the gains of all, ``ExcessMTL`` raises what has the most to gain, and ``Krum`` (``n_byzantine``)
      picks what agrees with the others.

    Cost: a backward pass as deep as the scope for the task and for each path, and memory for as many gradients, every
    ``every`` steps. A GPU waits for the solvers, which take about a millisecond for five paths, but NashMTL ten, and
    FairGrad up to a hundred where gradients differ a millionfold in length. ``ExcessMTL`` keeps one number a parameter
    and row, in checkpoints as well.

    Where a gradient is not finite the weights are not either, so that the step fails by name, and the method never
    hears of it; where all gradients are zero, or between two looks, the last weights hold (1 before the first). Under
    gradient accumulation each batch is looked at. CAGrad, DualProj, NashMTL and UPGrad need solvers, which ``pip
    install 'distillery[gradient]'`` brings (that of NashMTL below Python 3.13).

    Source: torchjd (Quinton and Rey 2024, arXiv:2406.16232), whose classes document the paper of each method; PCD:
    arXiv:2606.29521, MGDA: Sener and Koltun 2018 (arXiv:1810.04650), PCGrad: Yu et al. 2020 (arXiv:2001.06782).
    Departures: inner products are computed in float64, and given in units of their trace to all but FairGrad and PCD,
    because torchjd compares them with absolute thresholds; ``max_weight``; random numbers have streams of their own.

    Args:
        method: a class of ``torchjd.aggregation``.
        options: of that class, by torchjd's names; lists of numbers stand for vectors, the task's value first (but
            ``tau`` has a value for each path alone).
        scope: where gradients are taken, ``last`` or ``all``; see :data:`~distill.gradient_scope.Scope`.
        every: steps between two looks, at least 1.
        normalize_rows: whether all gradients are made as long as the task's, at most a millionfold, before they are
            weighed; the weights are multiplied likewise. A constant in front of a path then does not count.
        max_weight: bound of each weight's size, above 0: those of ``FairGrad`` and ``IMTLG`` have none of their own.
        seed: of the random numbers of GradVac and PCGrad.

    Raises:
        ValueError: an option is out of bounds, or a package is missing; at ``connect``: the method does not fit the
            number of paths.
    """

    weighs_task = True
    methods = WEIGHTINGS
    _weights: Tensor  # [1 + key]: of the last look, the task's first

    def __init__(
        self,
        method: str,
        options: Mapping[str, Any] | None = None,
        scope: ParameterScope = "last",
        every: int = 1,
        normalize_rows: bool = False,
        max_weight: float = 1e6,
        seed: int = 0,
        **common: Unpack[Common],
    ) -> None:
        super().__init__(method, options, scope, normalize_rows, seed, **common)
        self.every = whole("every", every, at_least=1)
        self.max_weight = finite("max_weight", max_weight, above=0)

    def allocate(self, num_keys: int) -> None:
        super().allocate(num_keys)
        self.register_buffer("_weights", torch.ones(1 + num_keys, dtype=torch.float64))

    def forward(self, losses: Losses) -> Aggregate:
        if not self.keys:
            return Aggregate(losses.task, losses.paths.detach(), torch.ones_like(losses.task).detach())
        looks = self.training and self._step % self.every == 0
        weights = (self._look(losses) if looks else self._weights).to(losses.paths, copy=True)
        return Aggregate(weights[0] * losses.task + (weights[1:] * losses.paths).sum(), weights[1:], weights[0])

    def _look(self, losses: Losses) -> Tensor:
        """Return new weights ``[1 + key]``, and remember them if they are finite."""
        rows = self._gradients(losses).rows()
        gram = exact_gram(rows)
        found = self._weigh(rows, gram) if bool(gram.isfinite().all()) else torch.full_like(gram[0], torch.nan)
        weights = distributed.broadcast(found.to(self._weights))
        self._weights.copy_(torch.where(weights.isfinite().all(), weights, self._weights))
        return weights

    def _weigh(self, rows: Tensor, gram: Tensor) -> Tensor:
        factors = self._factors(gram)
        gram = gram * torch.outer(factors, factors)
        if not bool(gram.diagonal().any()):
            return self._weights.cpu()
        if self.normalize_rows:
            rows = rows * factors.to(rows)[:, None]
        weights = factors * self._method.weights(rows, gram, step=self._step)
        return weights.clamp(-self.max_weight, self.max_weight)
