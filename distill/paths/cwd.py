"""Channel-wise distillation: where in the image does each channel respond?"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from distill.adapter import Adapter
from distill.options import finite
from distill.paths.base import TapChoice
from distill.paths.sizes import pooled_alike
from distill.paths.softened import mean_divergence
from distill.paths.whole_map import WidthMatchedPath


class CWD(WidthMatchedPath):
    """Matches where each channel responds: its map, as a distribution over the positions.

    For each channel, with the values ``s`` and ``t`` of student and teacher at its positions::

        p = softmax over positions of t / T          q = softmax over positions of s / T
        loss = T^2 * mean over batch and channels of KL(p || q)

    A channel's shift does not count, its scale does. Where the numbers of channels differ the student's map passes an
    adapter (1x1 convolution + BatchNorm), else it enters raw. Maps of different size are brought to the smaller height
    and width first, by adaptive average pooling of the larger. A map of one position has one distribution only: its
    loss is zero. The target is the teacher's whole map ``t``, ``[batch, channel, height, width]``.

    Source: Shu et al. 2021, *Channel-wise knowledge distillation for dense prediction* (ICCV, arXiv:2011.13256), in its
    form between feature maps: the deepest ones (theirs: what the head's pyramid pooling gives), and ``T = 4``. Where
    others differ: TorchDistiller, by the authors, takes the logarithm of a softmax, which is minus infinity where that
    rounds to zero, and has a ReLU behind the adapter; some divide by the number of positions too. The paper's weight
    for feature maps is 50. Pooling where sizes differ is ours.

    Args:
        taps: ``auto`` (the paper: the deepest features), or a list of ``{student: NAME, teacher: NAME}``.
        temperature: ``T``, above 0.

    Raises:
        ValueError: ``temperature`` is not a finite number above 0.
    """

    only_last = True

    def __init__(self, taps: TapChoice = "auto", temperature: float = 4.0) -> None:
        super().__init__(taps)
        self.temperature = finite("temperature", temperature, above=0)

    def make_adapter(self, in_channels: int, out_channels: int) -> nn.Module:
        return Adapter(in_channels, out_channels)

    def layer_loss(self, layer: str, student: Tensor, target: Tensor) -> Tensor:
        student, target = pooled_alike(student, target)
        log_p, log_q = self._log_shares(target), self._log_shares(self.adapt(layer, student))
        return self.temperature**2 * mean_divergence(log_p, log_q)

    def _log_shares(self, maps: Tensor) -> Tensor:
        """Return the logarithms of each channel's distribution, ``[batch * channel, position]``."""
        return F.log_softmax(maps.flatten(2).flatten(0, 1) / self.temperature, dim=1)
