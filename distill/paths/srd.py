"""A simple recipe: a linear projector, features standardised over the batch, and the logarithm of their distance."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from distill.options import finite
from distill.paths.base import TapChoice, key
from distill.paths.batch_dependent import BatchDependentFeatures
from distill.paths.pooled import PooledPath, pooled
from distill.taps import Probe

VARIANCE_EPSILON = 1e-4
"""Added to the variance over the batch, as in the authors' code for ImageNet."""
DISTANCE_EPSILON = 1e-5
"""Added to the distance before the logarithm, as in the authors' code for transformers."""


class SRD(BatchDependentFeatures, PooledPath):
    """Matches what each channel says of an image in comparison with the other images of the batch.

    With the student's features ``s`` and the teacher's ``t``, averaged over positions, a learned matrix ``P`` and
    ``z`` standardised over the batch, channel by channel (BatchNorm that learns nothing)::

        z(x) = (x - mean over batch of x) / sqrt(variance over batch of x + 1e-4)
        loss = log(1e-5 + sum over batch and channels of |z(P s) - z(t)|^alpha)

    The loss can be negative. Its gradient doesn't depend on the scale of the distance, but on how it spreads: the
    larger ``alpha``, the more the worst channels count. Where student and teacher agree the logarithm has the value
    ``log(1e-5)`` and slope 0; so it has for a batch of one sample, which standardises to 0.

    Both sides are standardised by the batch's own statistics, so a sample's loss depends on its batch mates. With
    several workers these are a worker's share, or with ``gather`` the whole batch; the sum, which is larger by the
    number of workers then, shifts the loss by a constant.

    Source: Miles and Mikolajczyk 2024, *Understanding the role of the projector in knowledge distillation* (AAAI,
    arXiv:2303.11098): the linear projector, the normalisation and the LogSum distance, in the reduction of the authors'
    code for ImageNet, which sums over batch and channels and weighs the loss by 2.

    Departures: this is that loss alone, while theirs adds what SoftTarget computes with temperature 1. ``P`` has no
    bias, which the standardisation would remove. The 1e-5 is from the authors' code for transformers, where the
    distance is another one (of each channel's correlation from 1); their code for ImageNet has none. Running
    statistics, which BatchNorm would keep for evaluation, aren't kept, since a path takes no part there.

    Args:
        taps: ``auto`` (the paper: the deepest features), or a list of ``{student: NAME, teacher: NAME}``.
        alpha: the exponent, at least 1; 4 in the authors' code.
        gather: whether to standardise over, and compare, the samples of all workers.

    Raises:
        ValueError: an option is out of bounds.
    """

    non_negative = False

    projectors: nn.ModuleDict

    def __init__(self, taps: TapChoice = "auto", alpha: float = 4.0, gather: bool = False) -> None:
        super().__init__(taps, gather)
        self.alpha = finite("alpha", alpha, at_least=1)

    def build(self, student: Probe, teacher: Probe) -> None:
        """Build a projector a pair."""
        self.projectors = nn.ModuleDict(
            {
                key(pair.layer): nn.Linear(student[pair.student].channels, teacher[pair.teacher].channels, bias=False)
                for pair in self.pairs
            }
        )

    def layer_loss(self, layer: str, student: Tensor, target: Tensor) -> Tensor:
        projected = self.projectors[key(layer)](pooled(student))  # [batch, channel of the teacher]
        difference = _standardized(self.together(projected)) - _standardized(self.together(target))
        return torch.log(DISTANCE_EPSILON + difference.abs().pow(self.alpha).sum())


def _standardized(rows: Tensor) -> Tensor:
    centred = rows - rows.mean(dim=0)
    return centred * torch.rsqrt(centred.square().mean(dim=0) + VARIANCE_EPSILON)
