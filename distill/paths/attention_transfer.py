"""Attention transfer: where does the network look?"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from distill.paths.attention import AttentionPath


class AttentionTransfer(AttentionPath):
    """Matches *where* both networks respond: the energy of all channels at each position, as a map of unit length.

    For each stage, with features ``f`` of shape ``[channel, height, width]``::

        A = sum over channels of f^2          A' = A / (||A||_2 + 1e-6)
        loss = mean over batch, height and width of (A'_student - A'_teacher)^2

    The student's features enter raw: energy needs no equal width, so there is no adapter. The target is the
    teacher's ``A``, ``[batch, height, width]``, not yet normalised, since maps of different size are brought to the
    smaller height and width by adaptive average pooling first.

    Source: Zagoruyko and Komodakis 2017 (arXiv:1612.03928), in the form that Chennupati et al. 2021 (arXiv:2110.09674)
    code. Where others differ: the text of the former takes the norm of the difference instead of its mean square, see
    ``AttentionTransferNorm``; its code and RepDistiller average over channels (the same after normalising, but for the
    1e-6, where they bound the length at 1e-12); the usual constant weight is 1000 because a mean over positions of unit
    maps is small. Where sizes differ RepDistiller pools the features and then squares; we pool the energies.

    Args:
        taps: ``auto`` (the paper: every stage), or a list of ``{student: NAME, teacher: NAME}``.
    """

    def distance(self, student: Tensor, teacher: Tensor) -> Tensor:
        return F.mse_loss(student, teacher)
