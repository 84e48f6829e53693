"""What a task knows of a model's head that its outputs do not show."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor

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


@dataclass(frozen=True, eq=False)
class Head:
    """What a task knows of a model's head.

    Attributes:
        independent: whether each class has a probability of its own (sigmoid); otherwise they share one (softmax).
        regions: the second stage of a detector; ``None`` where there is none.
    """

    independent: bool = False
    regions: RegionHead | None = None
