"""Adam whose state a checkpoint holds, for weights that learn by a rule of their own."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class BufferedAdam(nn.Module):
    """Descends given gradients with Adam; moments are buffers, so they are saved with the module that owns this.

    A ``torch.optim.Adam`` of one's own is in no checkpoint, and a training that is restored would silently go on
    otherwise. Apart from that they do the same; see there for the arguments. A value may sit out a step, and then
    remembers none: it counts steps of its own, by which moments that began at 0 are made up for. A gradient that is not
    finite changes nothing, where it would stay in the moments for ever.

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
    _steps: Tensor  # [value]

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
        self.register_buffer("_steps", torch.zeros(shape, dtype=torch.float64))

    @torch.no_grad()
    def forward(self, values: Tensor, gradient: Tensor, counts: Tensor | None = None) -> None:
        """Change ``values`` in place by one step.

        Args:
            values: ``[value]``.
            gradient: ``[value]``; where it doesn't count it may be anything.
            counts: ``[value]``, which of them take the step, or a scalar for all alike; ``None``: all. The others stay,
                and so do their moments.
        """
        gradient = gradient + self.weight_decay * values
        takes = torch.ones_like(gradient, dtype=torch.bool) if counts is None else counts.expand_as(gradient)
        takes = takes & torch.where(takes, gradient.square(), 0.0).isfinite().all()
        steps = self._steps + 1
        mean = self._mean.lerp(gradient, 1 - self.betas[0])
        square = self._square.lerp(gradient.square(), 1 - self.betas[1])
        size = (square / (1 - self.betas[1] ** steps)).sqrt() + self.epsilon
        moved = values - self.learning_rate * (mean / (1 - self.betas[0] ** steps)) / size
        # No index: that would make a GPU wait.
        for old, new in ((self._steps, steps), (self._mean, mean), (self._square, square), (values, moved)):
            old.copy_(torch.where(takes, new, old))
