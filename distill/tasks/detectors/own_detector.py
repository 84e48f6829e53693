"""Detectors that are none of torchvision's: what such a model has to offer."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping

from torch import Tensor, nn

from distill.taps import LEVEL, OUTPUT, Head
from distill.tasks.detectors.base import DetectorFamily
from distill.tasks.detectors.output import DetectorOutput


class OwnDetector(nn.Module, ABC):
    """A detector of one's own; subclass it, and the Detection task can train and distil it.

    Attributes:
        independent: whether each class has a probability of its own (sigmoid); otherwise they share one (softmax).
    """

    independent: bool = True

    @abstractmethod
    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """Return what can be distilled, by tap name.

        Args:
            images: ``[batch, channel, height, width]``, normalised.

        Returns:
            Under ``""`` the class logits ``[batch, class, location]``; under ``:level0``, ``:level1``, ... the maps
            that enter the heads, the finest first; other parts, batch first, under names that begin with a colon, the
            box offsets under ``:boxes``, ``[batch, 4, location]``.
        """

    @abstractmethod
    def losses(self, parts: Mapping[str, Tensor], targets: list[dict[str, Tensor]]) -> dict[str, Tensor]:
        """Return the losses, scalars by name, computed from the very tensors that :meth:`forward` returned.

        On several ranks each parameter needs a gradient whether or not a share has objects, if only of zero: which ones
        have none DDP is told once, by the first batch.

        Args:
            parts: what :meth:`forward` returned.
            targets: image by image ``boxes`` ``[object, 4]`` (left, top, right, bottom in pixels) and ``labels``
                ``[object]``, int64, from 1; there may be none.
        """

    @abstractmethod
    def detections(self, parts: Mapping[str, Tensor]) -> list[dict[str, Tensor]]:
        """Return image by image ``boxes``, ``scores`` and ``labels`` of what was found."""


class OwnFamily(DetectorFamily):
    """Models that implement :class:`OwnDetector`."""

    independent = True

    def fits(self, model: nn.Module) -> bool:
        return isinstance(model, OwnDetector)

    def run(self, model: nn.Module, images: Tensor) -> DetectorOutput:
        parts = model(images)
        maps = {name: part for name, part in parts.items() if name.startswith(LEVEL)}
        if OUTPUT not in parts:
            raise ValueError(f"a detector must return its class logits under '', found {', '.join(parts) or 'nothing'}")
        return DetectorOutput.of(model, images, {name: parts[name] for name in parts if name not in maps}, maps)

    def losses(self, output: DetectorOutput, targets: list[dict[str, Tensor]]) -> dict[str, Tensor]:
        return _own(output).losses(output.parts, targets)

    def detections(self, output: DetectorOutput) -> list[dict[str, Tensor]]:
        """Return what the model found.

        Raises:
            ValueError: it is not what :class:`OwnDetector` promises.
        """
        found = _own(output).detections(output.parts)
        name, num_images = f"{type(output.model).__name__}.detections", len(output.parts[OUTPUT])
        if len(found) != num_images:
            raise ValueError(f"{name} must return a mapping for each of {num_images} images, found {len(found)}")
        for each in found:
            sizes = {part: list(each[part].shape) for part in ("boxes", "scores", "labels") if part in each}
            number = sizes.get("boxes", [0])[0]
            if sizes != {"boxes": [number, 4], "scores": [number], "labels": [number]}:
                raise ValueError(f"{name} must return boxes [object, 4], scores and labels [object], found {sizes}")
        return found

    def head(self, output: DetectorOutput) -> Head:
        return Head(independent=_own(output).independent)


def _own(output: DetectorOutput) -> OwnDetector:
    assert isinstance(output.model, OwnDetector)
    return output.model
