"""A backbone with a feature pyramid."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor, nn

from distill.late import ops
from distill.models.backbone import Backbone
from distill.models.base import check_sizes
from distill.models.levels import select_levels


class Pyramid(nn.Module):
    """Feature pyramid network (Lin et al. 2017, arXiv:1612.03144) on the maps of a backbone.

    Levels coarser than the backbone's deepest map come from convolutions of stride 2 on the one before, with a ReLU in
    between, as RetinaNet has them (Lin et al. 2017, arXiv:1708.02002, footnote 2; on the pyramid's map, as FCOS, not
    on the backbone's).

    Args:
        trunk: the backbone.
        strides: of the levels, in pixels of the image.
        width: channels of each level.

    Attributes:
        out_channels: ``width``, under the name that torchvision's detectors read.

    Raises:
        ValueError: the backbone has no such strides.
    """

    def __init__(self, trunk: Backbone, *, strides: Sequence[int], width: int) -> None:
        super().__init__()
        check_sizes(width=width)
        channels = select_levels(trunk, strides)
        self.body = trunk
        self.fpn = ops.FeaturePyramidNetwork(channels, width)
        self.coarser = nn.ModuleList(
            nn.Conv2d(width, width, kernel_size=3, stride=2, padding=1) for _ in range(len(strides) - len(channels))
        )
        for convolution in self.coarser.children():
            assert isinstance(convolution, nn.Conv2d)
            nn.init.kaiming_uniform_(convolution.weight, a=1)
            assert convolution.bias is not None
            nn.init.zeros_(convolution.bias)
        self.out_channels = width

    def forward(self, images: Tensor) -> OrderedDict[str, Tensor]:
        """Map images ``[batch, channel, height, width]`` to the levels under ``0``, ``1``, ..., the finest first."""
        levels: OrderedDict[str, Tensor] = self.fpn(self.body(images))
        for number, convolution in enumerate(self.coarser):
            coarsest = levels[next(reversed(levels))]
            levels[str(len(levels))] = convolution(F.relu(coarsest) if number else coarsest)
        return levels
