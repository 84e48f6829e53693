"""The adaptation layer of the paper: brings a student map to the teacher's width."""

from __future__ import annotations

from torch import Tensor, nn


class Adapter(nn.Module):
    """1x1 convolution without bias (Kaiming, fan-out) followed by BatchNorm.

    Source: the adaptation layers of Chennupati et al. 2021 (arXiv:2110.09674).

    Args:
        in_channels: width of the student's map.
        out_channels: width of the teacher's map.
    """

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(in_channels, out_channels, kernel_size=1, bias=False)
        self.norm = nn.BatchNorm2d(out_channels)
        nn.init.kaiming_normal_(self.convolution.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, features: Tensor) -> Tensor:
        """Map ``[batch, in_channels, height, width]`` to ``[batch, out_channels, height, width]``."""
        adapted: Tensor = self.norm(self.convolution(features))
        return adapted
