"""Activation boundaries: which neurons respond at all?"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from distill.options import finite
from distill.paths.base import AdaptedFeaturePath, TapChoice
from distill.paths.sizes import pool

BITS = 8
"""Neurons in a byte of the target."""


class AB(AdaptedFeaturePath):
    """Matches *which* neurons respond: on which side of its activation boundary, which is 0, each one lies.

    The taps read what enters the activation functions. For each stage, with adapted student features ``s`` and teacher
    features ``t``, ``[channel, height, width]``::

        side = 1 where t > 0, else -1
        loss = mean over batch, channels and positions of max(0, margin - side * s)^2

    How strongly a neuron of the teacher responds does not count, so the target is one bit a neuron, ``[batch,
    channel / 8, height, width]`` in bytes, the lowest bit for the first of eight channels. Where height or width
    differ, the adapted student map is brought to the teacher's by adaptive average pooling; positions repeat where the
    teacher's map is the larger one.

    Where a tap ends in no activation function, as a residual sum does, it is read as it is; so is one that is made of
    activations, such as a concatenation or a pooling of them, whose values cannot be negative.

    Source: Heo et al. 2019, *Knowledge transfer via distillation of activation boundaries formed by hidden neurons*
    (arXiv:1811.03233), their "alternative loss", with the connector of their code (1x1 convolution and BatchNorm), here
    also where the widths agree and theirs for CIFAR-10 has none. They use it to initialise the student, before a
    training without it; the option ``schedule: {end: 0.1}`` beside this path's does nearly that, except that the task's
    loss takes part from the start. Departures: they sum over channels and positions, times 3/1000 (CIFAR-10) or 1/1000
    (MIT scenes), and halve the weight of each stage before the last once more. Where every stage halves height and
    width and doubles the channels, a stage has twice the neurons of the next one, so the mean makes the same of it:
    their weights are ``0.003 * channels * height * width`` (0.001 for MIT scenes) of the last stage, in the mean's
    terms, for every stage. In networks whose blocks begin with BatchNorm and ReLU the authors read the BatchNorm of the
    next stage's first block: name it as a tap to do so, since a bare residual sum has its boundary elsewhere. Their
    code for CIFAR-10 has the teacher's BatchNorm in training mode, here it never is.

    Args:
        taps: ``auto`` (the paper: every stage), or a list of ``{student: NAME, teacher: NAME}``.
        margin: how far from the boundary the student shall be, above 0.

    Raises:
        ValueError: ``margin`` is out of bounds; at ``connect``: an activation function cannot be looked in front of.
    """

    before_activation = True
    target_options = ()

    def __init__(self, taps: TapChoice = "auto", margin: float = 1.0) -> None:
        super().__init__(taps)
        self.margin = finite("margin", margin, above=0)

    def layer_target(self, layer: str, teacher: Tensor) -> Tensor:
        return _pack(teacher > 0)

    def layer_loss(self, layer: str, student: Tensor, target: Tensor) -> Tensor:
        adapted = self.adapt(layer, student)
        responds = _unpack(target, adapted.shape[1])
        adapted = pool(adapted, (responds.shape[2], responds.shape[3]))
        return F.relu(self.margin - torch.where(responds, adapted, -adapted)).square().mean()


def _pack(flags: Tensor) -> Tensor:
    """Pack flags ``[batch, channel, height, width]`` into bytes ``[batch, channel / 8, height, width]``."""
    spare = -flags.shape[1] % BITS
    padded = F.pad(flags.to(torch.uint8), (0, 0, 0, 0, 0, spare))
    bits = padded.reshape(len(flags), -1, BITS, *flags.shape[2:])
    packed: Tensor = (bits << _places(flags)).sum(dim=2, dtype=torch.uint8)
    return packed


def _unpack(packed: Tensor, channels: int) -> Tensor:
    """Undo :func:`_pack`; the bytes may come as floating numbers."""
    bits = (packed.to(torch.uint8)[:, :, None] >> _places(packed)) & 1
    return bits.flatten(1, 2)[:, :channels].bool()


def _places(like: Tensor) -> Tensor:
    return torch.arange(BITS, dtype=torch.uint8, device=like.device)[:, None, None]
