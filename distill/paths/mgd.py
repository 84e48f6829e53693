"""Masked generative distillation: can the student's map, with holes in it, be completed to the teacher's?"""

from __future__ import annotations

from typing import Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from distill.options import finite
from distill.paths.base import TapChoice, key
from distill.paths.sizes import pooled_alike
from distill.paths.whole_map import WholeMapPath
from distill.taps import Probe

Masked = Literal["positions", "channels"]
"""What is masked as a whole."""


class MGD(WholeMapPath):
    """Matches the teacher's map with one that is generated from the student's map after parts of it were masked.

    With student features ``s`` and teacher features ``t``, ``[channel, height, width]``, a 1x1 convolution ``align`` to
    the teacher's width (where the widths differ) and a generator ``G`` of that width (3x3 convolution, ReLU, 3x3
    convolution)::

        mask = 0 with probability mask_ratio, else 1     # drawn a position, for all channels alike; or a channel
        loss = mean over batch, channels and positions of (G(mask * align(s)) - t)^2

    The masks are drawn anew in every step from torch's global generator, each worker its own, in training *and* in
    evaluation mode: without them the generator would meet maps that it never learned to complete. So a loss is a random
    number in either mode, and depends on the place that a sample has in its batch.

    The target is the teacher's map. Where height or width differ, the larger map is averaged down first.

    Source: Yang et al. 2022, *Masked generative distillation* (arXiv:2205.01529), section 3. For classification the
    authors distill the last map alone, which is what ``auto`` means here. Their masks are of positions in the paper and
    in the code for detection (ratio 0.65 for one stage, 0.45 for two); their code for classification
    masks channels, with ratio 0.15, while its docstring names 0.5, the default here. Departures: they sum
    over channels and positions, with weight 7e-5 for classification; here a mean is taken, so that theirs is weight
    ``7e-5 * channels * height * width``, 1.8 for a map of 512 x 7 x 7. For detectors, every level of whose pyramid they
    distil, theirs is ``2e-5 * channels * height * width``. They require equal height and width.

    Args:
        taps: ``auto`` (the deepest features; every level of a pyramid), or a list of
            ``{student: NAME, teacher: NAME}``.
        mask_ratio: share that is masked, at least 0 and below 1.
        masked: ``positions`` masks all channels of a position, ``channels`` all positions of a channel.

    Raises:
        ValueError: an option is out of bounds.
    """

    only_last = True

    def __init__(self, taps: TapChoice = "auto", mask_ratio: float = 0.5, masked: Masked = "positions") -> None:
        super().__init__(taps)
        self.mask_ratio = finite("mask_ratio", mask_ratio, at_least=0)
        if self.mask_ratio >= 1:
            raise ValueError(f"mask_ratio must be at least 0 and below 1, found {mask_ratio!r}")
        if masked not in get_args(Masked):
            raise ValueError(f"masked must be one of {', '.join(get_args(Masked))}, found {masked!r}")
        self.masked = masked

    def build(self, student: Probe, teacher: Probe) -> None:
        """Build an alignment and a generator a pair."""
        self.alignments = nn.ModuleDict()
        self.generators = nn.ModuleDict()
        for pair in self.pairs:
            narrow, wide = student[pair.student].channels, teacher[pair.teacher].channels
            align = nn.Identity() if narrow == wide else nn.Conv2d(narrow, wide, kernel_size=1)
            self.alignments[key(pair.layer)] = align
            self.generators[key(pair.layer)] = nn.Sequential(
                nn.Conv2d(wide, wide, kernel_size=3, padding=1),
                nn.ReLU(),
                nn.Conv2d(wide, wide, kernel_size=3, padding=1),
            )

    def layer_loss(self, layer: str, student: Tensor, target: Tensor) -> Tensor:
        student, target = pooled_alike(student, target)
        aligned = self.alignments[key(layer)](student)
        return F.mse_loss(self.generators[key(layer)](aligned * self._mask(aligned)), target)

    def _mask(self, maps: Tensor) -> Tensor:
        """Draw what is kept, ``[batch, 1, height, width]`` or ``[batch, channel, 1, 1]``."""
        batch, channels, height, width = maps.shape
        shape = (batch, 1, height, width) if self.masked == "positions" else (batch, channels, 1, 1)
        return torch.rand(shape, device=maps.device) >= self.mask_ratio
