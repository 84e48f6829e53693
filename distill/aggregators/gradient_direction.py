"""A direction from the gradients of task and paths, by the methods of multi-objective optimisation."""

from __future__ import annotations

import torch
from torch import Tensor

from distill import distributed
from distill.aggregators.base import Aggregate, Losses
from distill.aggregators.gradient_method import GradientMethod
from distill.aggregators.multi_objective import DIRECTIONS, exact_gram


class GradientDirection(GradientMethod):
    """Updates the student in the direction that a method of multi-objective optimisation makes of all gradients.

    With ``G`` the rows of gradients in the parameters ``p`` of the scope, the task's first::

        total = L_task + sum of L_i + (d - sum of rows) . (p - p')       d = method(G),  p' = p as a constant

    Its value is the sum of all losses, its gradient ``d`` in the scope, and that of the plain sum in all other
    parameters: the paths' own, and with scope ``last`` the student's before its last stage. So use ``all`` where memory
    allows. At the ``taps`` there is no such direction: an activation's gradient is one of this rank's own samples, and
    each path has an activation, and so a space, of its own. What the methods do:

    - ``GradDrop`` keeps of each parameter's gradients those of one sign, drawn with the odds of their sums;
    - ``ConFIG`` has the same cosine with every gradient, and the length of their projections' sum;
    - ``TrimmedMean`` (``trim_number``) leaves out the largest and the smallest gradients of each parameter.

    There are no weights, so modifiers are refused. What is reported as such are the multiples of the paths' gradients
    that, with one of the task's, come closest to ``d``; where a gradient is zero, 0. Every step costs a backward pass
    as deep as the scope for the task and for each path, and memory for as many gradients. Where a gradient is not
    finite the total is not either; where all are zero, so is ``d``. There is no ``every``: weights could be kept until
    the next look, but a direction is one of this batch, and of these parameters. Outside training nothing is looked
    at, and the total is the plain sum.

    Source: torchjd (Quinton and Rey 2024, arXiv:2406.16232); GradDrop: Chen et al. 2020 (arXiv:2010.06808), ConFIG: Liu
    et al. 2024 (arXiv:2408.11104), TrimmedMean: Yin et al. 2018 (arXiv:1803.01498). Departure: random numbers have
    streams of their own.

    Args:
        method: ``ConFIG``, ``GradDrop`` or ``TrimmedMean``, classes of ``torchjd.aggregation``.
        options: of that class, by torchjd's names; lists of numbers stand for vectors, the task's value first.
        scope: where gradients are taken, ``last`` or ``all``; see :data:`~distill.gradient_scope.Scope`.
        normalize_rows: whether all gradients are made as long as the task's, at most a millionfold, beforehand.
        seed: of the random numbers of GradDrop.

    Raises:
        ValueError: an option is out of bounds, a package is missing, or there are modifiers; at ``connect``: the method
            does not fit the number of paths.
    """

    weighs = False
    refused_options = ("modifiers",)
    methods = DIRECTIONS

    def forward(self, losses: Losses) -> Aggregate:
        total = losses.task + losses.paths.sum()
        if not self.training or not self.keys:
            ones = torch.ones_like(losses.paths).detach()
            return Aggregate(total, ones, torch.ones_like(total).detach())
        gradients = self._gradients(losses)
        rows = gradients.rows()
        gram = exact_gram(rows)
        seen = rows * self._factors(gram).to(rows)[:, None] if self.normalize_rows else rows
        direction = self._method.direction(seen, step=self._step)
        weights = distributed.broadcast(_coefficients(rows, gram, direction).to(losses.paths))
        return Aggregate(total + gradients.bend(direction), weights[1:], weights[0])


def _coefficients(rows: Tensor, gram: Tensor, direction: Tensor) -> Tensor:
    """Return the multiples ``[row]`` of the rows whose sum is closest to the direction; on the CPU."""
    lengths = gram.diagonal().sqrt()
    scales = torch.where(lengths > 0, 1 / lengths, 0.0)
    cosines = gram * scales[:, None] * scales  # of unit rows, or a short one would count as none
    if not bool(cosines.isfinite().all()):
        return torch.full_like(lengths, torch.nan)
    inner = (rows * direction).sum(dim=1, dtype=torch.float64).cpu()
    # Where rows depend on each other but for their rounding, that alone would decide on multiples of millions.
    smallest = max(torch.finfo(rows.dtype).eps, len(rows) * torch.finfo(cosines.dtype).eps)
    solution: Tensor = torch.linalg.pinv(cosines, rtol=smallest, hermitian=True) @ (scales * inner)
    return scales * solution
