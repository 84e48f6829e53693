"""A backbone whose maps go on, coarser and coarser."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence

from torch import Tensor, nn

from distill.models.backbone import Backbone
from distill.models.base import check_sizes
from distill.models.levels import select_levels


class Extended(nn.Module):
    """The maps of a backbone, and those of extra blocks of stride 2 behind it (Liu et al. 2016, arXiv:1512.02325).

    Args:
        trunk: the backbone.
        strides: of the levels, in pixels of the image.
        width: channels of the extra levels.
        block: makes an extra block for numbers of channels that enter and leave it.

    Attributes:
        out_channels: channels of each level, under the name that torchvision's detectors read.

    Raises:
        ValueError: the backbone has no such strides.
    """

    def __init__(
        self, trunk: Backbone, *, strides: Sequence[int], width: int, block: Callable[[int, int], nn.Module]
    ) -> None:
        super().__init__()
        check_sizes(width=width)
        channels = select_levels(trunk, strides)
        self.body = trunk
        self.out_channels = channels + [width] * (len(strides) - len(channels))
        entering = [channels[-1], *self.out_channels[len(channels) :]]
        self.extra = nn.ModuleList(block(number, width) for number in entering[:-1])

    def forward(self, images: Tensor) -> OrderedDict[str, Tensor]:
        """Map images ``[batch, channel, height, width]`` to the levels under ``0``, ``1``, ..., the finest first."""
        levels: OrderedDict[str, Tensor] = self.body(images)
        for block in self.extra:
            levels[str(len(levels))] = block(levels[next(reversed(levels))])
        return levels
