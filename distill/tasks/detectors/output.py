"""What running a detector returns."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor, nn

from distill.late import models
from distill.taps import BOXES as BOXES
from distill.taps import LEVEL
from distill.tasks.detectors.anchor_step import anchor_step


@dataclass(frozen=True, eq=False)
class DetectorOutput:
    """What a detector says of a batch before anything is chosen or left out.

    A location is an anchor at a place of a level; all levels follow one another, the finest first.

    Attributes:
        model: that ran.
        size: height and width of the images.
        parts: by tap name, what can be distilled: the logits ``[batch, class, location]`` under ``OUTPUT``, the box
            offsets ``[batch, 4, location]`` under ``BOXES``, the maps that entered the heads under ``:level0``, ....
        maps: what the model itself calls these maps, the finest first.
        autocast: the type that the model computed in; ``None`` where it was that of its weights.
        known_anchors: by generator, an image's anchors, once they were asked for; shared with :meth:`image`.
    """

    model: nn.Module
    size: tuple[int, int]
    parts: Mapping[str, Tensor]
    maps: tuple[str, ...] = ()
    autocast: torch.dtype | None = None
    known_anchors: dict[nn.Module, Tensor] = field(default_factory=dict, repr=False)

    @classmethod
    def of(
        cls, model: nn.Module, images: Tensor, parts: Mapping[str, Tensor], maps: Mapping[str, Tensor]
    ) -> DetectorOutput:
        """Gather what a model says of ``images``: the parts but for the maps, and the maps by its own names."""
        levels = {f"{LEVEL}{number}": level for number, level in enumerate(maps.values())}
        return cls(
            model,
            size=(images.shape[2], images.shape[3]),
            parts={**parts, **levels},
            maps=tuple(maps),
            autocast=_autocast(images.device.type),
        )

    def __len__(self) -> int:
        return len(next(iter(self.parts.values())))

    @property
    def levels(self) -> list[Tensor]:
        """The maps that entered the heads, ``[batch, channel, height, width]``, the finest first."""
        return [part for name, part in self.parts.items() if name.startswith(LEVEL)]

    @property
    def features(self) -> OrderedDict[str, Tensor]:
        """The same maps by the model's own names, as float32."""
        return OrderedDict((name, level.float()) for name, level in zip(self.maps, self.levels, strict=True))

    def by_location(self, name: str) -> Tensor:
        """Return a part as torchvision has it, ``[batch, location, channel]``, as float32."""
        return self.parts[name].float().transpose(1, 2)

    def image(self, number: int) -> DetectorOutput:
        """Return what is said of one image, as a batch of one."""
        return replace(self, parts={name: part[number : number + 1] for name, part in self.parts.items()})

    def anchors(self, generator: nn.Module) -> list[Tensor]:
        """Return for each image the same anchors, ``[location, 4]``, pixels, float32.

        They lie where torchvision would have them, which pads images to multiples of 32 pixels. Of others its generator
        takes the image's side by the map's, rounded down, as the step, so that anchors of a map of 63 places on 500
        pixels would end at 434, 62 pixels from what the last place shows.

        Args:
            generator: of the model; torchvision's take the type of the maps, whose lower precision would move anchors.
        """
        if generator not in self.known_anchors:
            self.known_anchors[generator] = self._anchors(generator)
        return [self.known_anchors[generator]] * len(self)

    def _anchors(self, generator: nn.Module) -> Tensor:
        blank = self.levels[0].new_zeros((), dtype=torch.float32)  # shapes alone count
        if isinstance(generator, models.detection.anchor_utils.AnchorGenerator):
            places = [tuple(level.shape[2:]) for level in self.levels]
            steps = [[anchor_step(*pair) for pair in zip(self.size, level, strict=True)] for level in places]
            generator.set_cell_anchors(blank.dtype, blank.device)
            return torch.cat(generator.grid_anchors(places, steps))
        image = models.detection.image_list.ImageList(blank.expand(1, 1, *self.size), [self.size])
        given: list[Tensor] = generator(image, [blank.expand(level.shape) for level in self.levels])
        return given[0]

    def as_it_ran(self) -> AbstractContextManager[None]:
        """Return the precision in which the model ran, for those of its layers that the losses run."""
        device = self.levels[0].device.type
        return torch.autocast(device, self.autocast, enabled=self.autocast is not None)


def _autocast(device: str) -> torch.dtype | None:
    if not torch.amp.is_autocast_available(device) or not torch.is_autocast_enabled(device):  # the meta device has none
        return None
    return torch.get_autocast_dtype(device)
