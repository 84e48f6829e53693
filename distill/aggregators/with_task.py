"""The task as one more of the losses that get a weight, for those who can put it there."""

from __future__ import annotations

import torch
from torch import Tensor

from distill.aggregators.base import Aggregate, Losses, weighted_sum


def weighed(losses: Losses, *, include_task: bool) -> Tensor:
    """Return the losses that get a weight: ``[key]``, or ``[1 + key]`` with the task's first."""
    return torch.cat([losses.task.reshape(1), losses.paths]) if include_task else losses.paths


def sum_of_weighed(losses: Losses, weights: Tensor, *, alpha_distill: float) -> Aggregate:
    """Return the sum that ``weights`` make; they are constants of the step.

    Args:
        losses: of the batch.
        weights: ``[key]``, or ``[1 + key]`` with the task's first, which is 1 where it is not among them.
        alpha_distill: multiplies the weights of the paths, not the task's.
    """
    weights = weights.detach().to(losses.paths)
    if len(weights) == len(losses.paths):
        return weighted_sum(losses, alpha_distill * weights)
    paths = alpha_distill * weights[1:]
    return Aggregate(weights[0] * losses.task + (paths * losses.paths).sum(), paths, weights[0])
