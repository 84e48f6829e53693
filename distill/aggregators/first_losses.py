"""What losses were when the training began."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class FirstLosses(nn.Module):
    """Remembers how large each path's loss was at first: the mean of its absolute value over the first batches.

    While these last, it is the mean over those so far, the present one among them. What is returned is never below
    ``epsilon``, nor below ``epsilon_of_task`` times what the task's loss was at first, so that it can be divided by. A
    loss that is not finite is no batch of its key: it would stay in the mean for good.

    Args:
        num_keys: how many losses there are beside the task's.
        over: batches whose mean is taken, at least 1.
        epsilon: absolute floor, above 0.
        epsilon_of_task: floor as a share of the task's first loss, at least 0.
    """

    _mean: Tensor  # [key + 1], the task's last
    _seen: Tensor  # [key + 1]: batches in it

    def __init__(self, num_keys: int, over: int, epsilon: float, epsilon_of_task: float) -> None:
        super().__init__()
        self.over = over
        self.epsilon = epsilon
        self.epsilon_of_task = epsilon_of_task
        self.register_buffer("_mean", torch.zeros(num_keys + 1))
        self.register_buffer("_seen", torch.zeros(num_keys + 1))

    @torch.no_grad()
    def forward(self, means: Tensor) -> Tensor:
        """Return ``[key]``, what the paths' losses were at first; alike on all ranks.

        Args:
            means: ``[key + 1]``, the losses of this batch, the task's last, means over the ranks.
        """
        sizes = means.to(self._mean).abs()
        counts = (self._seen < self.over) & sizes.isfinite()
        seen = self._seen + 1
        mean = torch.where(counts, self._mean + (sizes - self._mean) / seen, self._mean)
        if self.training:
            self._mean.copy_(mean)
            self._seen += counts
        floor = (self.epsilon_of_task * mean[-1]).clamp_min(self.epsilon)
        return torch.maximum(mean[:-1], floor).to(means)
