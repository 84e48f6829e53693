"""A classification network as the trunk of a dense model."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from itertools import groupby

import torch.nn.functional as F
from torch import Tensor, nn

from distill.models.base import check_sizes
from distill.models.chain import chain
from distill.models.dilation import dilate


class Backbone(nn.Module):
    """The features of a classification network, without its pooling and classifier.

    Its submodules ``stage1``, ``stage2``, ... are one a stride, the finest first; each ends with the last map of its
    stride. The modules in them are the network's own, under their names there (``features.3`` becomes ``features_3``),
    so the network is used up. What a forward pass returns besides modules is left out: DenseNet's last ReLU.

    Args:
        model: a network whose modules follow each other: torchvision's ResNets, MobileNets, EfficientNets, ConvNeXts,
            RegNets, ShuffleNets, VGGs, DenseNets, MNASNets, Swin Transformers, and ours.
        in_channels: channels of the images.
        output_stride: rows of the image for one row of the coarsest map; deeper stages keep this resolution by
            dilation (see :func:`distill.models.dilation.dilate`). ``None`` leaves strides as they are.
        scale: factor by which the images are resized before the first stage.

    Attributes:
        channels: of each stage's map.
        strides: of each stage's map, in pixels of what enters the first stage.

    Raises:
        ValueError: the modules do not follow each other, or an option is wrong.
    """

    channels: tuple[int, ...]
    strides: tuple[int, ...]

    def __init__(
        self, model: nn.Module, *, in_channels: int = 3, output_stride: int | None = None, scale: float = 1.0
    ) -> None:
        super().__init__()
        check_sizes(in_channels=in_channels)
        if not scale > 0:
            raise ValueError(f"scale must be above 0, found {scale!r}")
        units = chain(model, in_channels=in_channels)
        octaves = [unit.tap.octave for unit in units]
        if octaves != sorted(octaves):
            raise ValueError(f"backbone must not enlarge its maps again, found {type(model).__name__}")
        if output_stride is not None:
            dilate(units, in_channels=in_channels, output_stride=output_stride)
        stages = [list(group) for _, group in groupby(units, key=lambda unit: unit.tap.octave)]
        for number, stage in enumerate(stages, start=1):
            modules = OrderedDict((unit.name.replace(".", "_"), unit.module) for unit in stage)
            self.add_module(f"stage{number}", nn.Sequential(modules))
        ends = [stage[-1].tap for stage in stages]
        self.channels = tuple(tap.channels for tap in ends)
        self.strides = tuple(min(2**tap.octave, output_stride or 2**tap.octave) for tap in ends)
        self._channels_last = tuple(tap.layout == "nhwc" for tap in ends)
        self._scale = scale
        self._returned = {f"stage{number}": number - 1 for number in range(1, len(stages) + 1)}

    def select(self, returned: Mapping[str, int]) -> Backbone:
        """Say what the forward pass returns, and return the backbone itself.

        Args:
            returned: numbers of stages, counted from 0, or from the end where negative, by the name to return them by.
        """
        self._returned = {name: range(len(self.channels))[number] for name, number in returned.items()}
        return self

    def forward(self, images: Tensor) -> OrderedDict[str, Tensor]:
        """Map images ``[batch, channel, height, width]`` to maps ``[batch, channel, row, column]`` by name."""
        features = self._resized(images)
        maps = []
        for number, channels_last in enumerate(self._channels_last, start=1):
            features = self.get_submodule(f"stage{number}")(features)
            maps.append(features.permute(0, 3, 1, 2) if channels_last else features)
        return OrderedDict((name, maps[number]) for name, number in self._returned.items())

    def _resized(self, images: Tensor) -> Tensor:
        if self._scale == 1:
            return images
        size = [max(1, round(side * self._scale)) for side in images.shape[-2:]]
        return F.interpolate(images, size=size, mode="bilinear", align_corners=False, antialias=self._scale < 1)
