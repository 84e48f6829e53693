"""What a task knows of a model's head that its outputs do not show."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from distill.objects import Objects

Maps = Mapping[str, Tensor]
"""By tap name, what a model's task shows of its output: the logits, boxes, levels of the pyramid."""


class RegionHead(ABC):
    """The second stage of a detector: looks at regions of the pyramid and says what is in them.

    It holds the model's own modules, not as submodules: whoever keeps one does not own their parameters.
    """

    num_classes: int
    """Classes that it tells apart, background included."""

    @abstractmethod
    def propose(self, outputs: Maps, number: int) -> Tensor:
        """Return the regions that the first stage finds most likely, ``[batch, number, 4]``, without gradient.

        Where it finds fewer, the last ones are empty boxes: all zeros.

        Args:
            outputs: of the same model.
            number: of regions an image.
        """

    @abstractmethod
    def describe(self, outputs: Maps, regions: Tensor) -> tuple[Tensor, Tensor]:
        """Say what is in regions.

        Args:
            outputs: of the same model.
            regions: ``[batch, region, 4]``, pixels of the image as the model sees it.

        Returns:
            Logits ``[batch, region, class]`` and box offsets ``[batch, region, class, 4]``.
        """


class LocationHead(ABC):
    """Where the locations of a one-stage detector lie, and which of them it trains on objects.

    That is so for images of the size that the model was probed with.
    """

    @abstractmethod
    def anchors(self, device: torch.device) -> Tensor:
        """Return the box that each location compares with objects, ``[location, 4]``, pixels of the image, float32."""

    @abstractmethod
    def positive(self, objects: Objects) -> Tensor:
        """Return which locations are trained on an object, ``[batch, location]``, bool; ignored objects have none."""


@dataclass(frozen=True, eq=False)
class Head:
    """What a task knows of a model's head.

    Attributes:
        independent: whether each class has a probability of its own (sigmoid); otherwise they share one (softmax).
        regions: the second stage of a detector; ``None`` where there is none.
        locations: the places of a detector whose outputs by location say where a box lies; ``None`` where that is not
            known.
        boxes: how offsets make a box: from which anchors, and how. Heads that say the same mean the same by equal
            offsets; empty where it is not known.
    """

    independent: bool = False
    regions: RegionHead | None = None
    locations: LocationHead | None = None
    boxes: str = ""
