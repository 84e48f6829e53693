"""Attention transfer as its paper writes it: how far apart are the places where both networks look?"""

from __future__ import annotations

import torch
from torch import Tensor

from distill.paths.attention import AttentionPath


class AttentionTransferNorm(AttentionPath):
    """Matches *where* both networks respond, by the distance between their attention maps of unit length.

    For each stage, with features ``f`` of shape ``[channel, height, width]``::

        A = sum over channels of f^2          A' = A / (||A||_2 + 1e-6)
        loss = mean over batch of ||A'_student - A'_teacher||_2

    The same maps as in ``AttentionTransfer``, and the same target, the teacher's ``A``, ``[batch, height, width]``; the
    distance enters by its length, not squared: its gradient has the same length near the optimum as far from it, and it
    does not shrink with the number of positions. It lies between 0 and the root of 2, since energies are not negative.
    At equality the slope of the length counts as zero. There is no adapter; maps of different size are brought to the
    smaller height and width by adaptive average pooling before they are normalised.

    Source: Zagoruyko and Komodakis 2017, *Paying more attention to attention* (arXiv:1612.03928), equation 2 with p = 2
    and the map F_sum^2. Departures: the factor beta / 2 is left to the aggregator; the 1e-6 is that of the code of
    Chennupati et al. 2021, while the authors' own bounds the length at 1e-12, and its loss is a mean square, as in
    ``AttentionTransfer``; where sizes differ we pool the energies.

    Args:
        taps: ``auto`` (the paper: every stage), or a list of ``{student: NAME, teacher: NAME}``.
    """

    def distance(self, student: Tensor, teacher: Tensor) -> Tensor:
        # The norm's gradient is zero where both maps agree; that of a root of squares would not be a number there.
        distance: Tensor = torch.linalg.vector_norm(student - teacher, dim=(1, 2))  # [batch]
        return distance.mean()
