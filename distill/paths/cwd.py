"""Channel-wise distillation: where in the image does each channel respond?"""

from __future__ import annotations

from typing import Literal, get_args

import torch.nn.functional as F
from torch import Tensor, nn

from distill.adapter import Adapter
from distill.options import finite
from distill.paths.answers import pair_answers
from distill.paths.base import TapChoice
from distill.paths.sizes import pooled_alike
from distill.paths.softened import mean_divergence
from distill.paths.whole_map import WidthMatchedPath
from distill.taps import Probe, TapPair

Between = Literal["features", "logits"]
"""What is compared."""


class CWD(WidthMatchedPath):
    """Matches where each channel responds: its map, as a distribution over the positions.

    For each channel, with the values ``s`` and ``t`` of student and teacher at its positions::

        p = softmax over positions of t / T          q = softmax over positions of s / T
        loss = T^2 * mean over batch and channels of KL(p || q)

    A channel's shift does not count, its scale does. Where the numbers of channels differ the student's map passes an
    adapter (1x1 convolution + BatchNorm), else it enters raw. Maps of different size are brought to the smaller height
    and width first, by adaptive average pooling of the larger. A map of one position has one distribution only: its
    loss is zero. The target is the teacher's whole map ``t``, ``[batch, channel, height, width]``.

    ``between: logits`` compares the answers of models for dense prediction instead: a channel is the map of a class,
    ``[batch, class, height, width]`` or ``[batch, class, place]``, the same in both models, and there is no adapter.

    Source: Shu et al. 2021, *Channel-wise knowledge distillation for dense prediction* (ICCV, arXiv:2011.13256), with
    ``T = 4``: between feature maps the deepest ones (theirs: what the head's pyramid pooling gives). Where
    others differ: TorchDistiller, by the authors, takes the logarithm of a softmax, which is minus infinity where that
    rounds to zero, and has a ReLU behind the adapter; some divide by the number of positions too. The paper's weight
    is 50 for feature maps and 3 for logits, where it gains more; mmrazor takes 10 for the levels of detectors. Pooling
    where sizes differ is ours.

    Args:
        taps: ``auto`` (the paper: the deepest features; every level of a pyramid), or a list of
            ``{student: NAME, teacher: NAME}``.
        temperature: ``T``, above 0.
        between: ``features``, or ``logits``, which takes no ``taps``.

    Raises:
        ValueError: an option is out of bounds; at ``connect``: the models' logits differ in shape, or have no places.
    """

    only_last = True

    def __init__(self, taps: TapChoice = "auto", temperature: float = 4.0, between: Between = "features") -> None:
        super().__init__(taps)
        self.temperature = finite("temperature", temperature, above=0)
        if between not in get_args(Between):
            raise ValueError(f"between must be one of {', '.join(get_args(Between))}, found {between!r}")
        if between == "logits" and taps != "auto":
            raise ValueError(f"taps name features, but between is logits, which are no tap; found {taps!r}")
        self.between = between

    def choose_pairs(self, student: Probe, teacher: Probe) -> tuple[TapPair, ...]:
        """Pair the deepest features, or as the options say."""
        if self.between == "features":
            return super().choose_pairs(student, teacher)
        pairs = pair_answers("CWD", student, teacher)
        if len(student.output_shape) == 1:
            raise ValueError(
                "CWD between logits needs an answer at each of many places, but these models give logits "
                f"{list(student.output_shape)} a sample; compare features"
            )
        return pairs

    def make_adapter(self, in_channels: int, out_channels: int) -> nn.Module:
        return Adapter(in_channels, out_channels)

    def layer_loss(self, layer: str, student: Tensor, target: Tensor) -> Tensor:
        student, target = pooled_alike(student, target)
        log_p, log_q = self._log_shares(target), self._log_shares(self.adapt(layer, student))
        return self.temperature**2 * mean_divergence(log_p, log_q)

    def _log_shares(self, maps: Tensor) -> Tensor:
        """Return the logarithms of each channel's distribution, ``[batch * channel, position]``."""
        return F.log_softmax(maps.flatten(2).flatten(0, 1) / self.temperature, dim=1)
