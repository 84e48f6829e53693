"""The contract of a family of detectors: how the task drives models of one kind."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar

from torch import Tensor, nn

from distill.taps import Head
from distill.tasks.detectors.output import DetectorOutput


class DetectorFamily(ABC):
    """Drives detectors of one kind. It holds nothing: each call is given the model, or what running it returned.

    Images are resized and normalised when they arrive; whatever a model does to that end is left out.
    """

    independent: ClassVar[bool]
    """Whether each class has a probability of its own (sigmoid); otherwise they share one (softmax)."""

    @abstractmethod
    def fits(self, model: nn.Module) -> bool:
        """Whether the model is of this kind."""

    @abstractmethod
    def run(self, model: nn.Module, images: Tensor) -> DetectorOutput:
        """Run a model on images ``[batch, channel, height, width]``, up to its heads.

        Nothing is computed there that the meta device cannot: no anchors, no choice of boxes.
        """

    @abstractmethod
    def losses(self, output: DetectorOutput, targets: list[dict[str, Tensor]]) -> dict[str, Tensor]:
        """Return the losses that the model itself is trained with, scalars by name.

        Args:
            output: what :meth:`run` returned; the losses are computed from its parts.
            targets: image by image ``boxes`` and ``labels``, see :meth:`distill.objects.Objects.trained`.
        """

    @abstractmethod
    def detections(self, output: DetectorOutput) -> list[dict[str, Tensor]]:
        """Return image by image ``boxes``, ``scores`` and ``labels`` of what was found, the best first."""

    def head(self, output: DetectorOutput) -> Head:
        """Return what is known of the model's head besides its outputs."""
        return Head(independent=self.independent)
