"""Adam whose state a checkpoint holds, for weights that learn by a rule of their own."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class BufferedAdam(nn.Module):
    """Descends given gradients with Adam; moments are buffers, so they are saved with the module that owns this.

    A ``torch.optim.Adam`` of one's own is in no checkpoint, and a training that is restored would silently go on
    otherwise. Apart from that they do the same; see there for the arguments. A gradient that is not finite changes
    nothing, where it would stay in the moments for ever.

    Source: Kingma and Ba 2015 (arXiv:1412.6980); weight decay is added to the gradient.

    Args:
        shape: of the values to descend.
        learning_rate: of the steps.
        weight_decay: pulls the values towards 0.
        epsilon: gradients far below it make no full steps.
        betas: how much of the past stays in the means of the gradient and of its square.
    """

    _mean: Tensor  # [value]
    _square: Tensor  # [value]
    _steps: Tensor  # scalar

    def __init__(
        self,
        shape: int,
        learning_rate: float,
        weight_decay: float = 0.0,
        epsilon: float = 1e-8,
        betas: tuple[float, float] = (0.9, 0.999),
    ) -> None:
        super().__init__()
        self.learning_rate = learning_rate
        self.weight_decay = weight_decay
        self.epsilon = epsilon
        self.betas = betas
        self.register_buffer("_mean", torch.zeros(shape, dtype=torch.float64))
        self.register_buffer("_square", torch.zeros(shape, dtype=torch.float64))
        self.register_buffer("_steps", torch.zeros((), dtype=torch.float64))

    @torch.no_grad()
    def forward(self, values: Tensor, gradient: Tensor) -> None:
        """Change ``values`` in place by one step."""
        gradient = gradient + self.weight_decay * values
        known = gradient.square().isfinite().all()
        before = [each.clone() for each in (values, *self.buffers())]
        self._steps.add_(1)
        self._mean.lerp_(gradient, 1 - self.betas[0])
        self._square.lerp_(gradient.square(), 1 - self.betas[1])
        mean = self._mean / (1 - self.betas[0] ** self._steps)
        square = self._square / (1 - self.betas[1] ** self._steps)
        values.sub_(self.learning_rate * mean / (square.sqrt() + self.epsilon))
        # Without a look at the number, which would make a GPU wait.
        for each, old in zip((values, *self.buffers()), before, strict=True):
            each.copy_(torch.where(known, each, old))
