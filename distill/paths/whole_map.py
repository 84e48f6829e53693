"""What paths share that compare maps position by position."""

from __future__ import annotations

from abc import abstractmethod

from torch import Tensor, nn

from distill.paths.base import FeaturePath, key
from distill.taps import Probe


class WholeMapPath(FeaturePath):
    """A feature path that needs of the teacher its map as it is.

    The target is the map itself, ``[batch, channel, height, width]``, so ``4 C H W`` bytes a sample in float32: 64 KiB
    for the 64 channels of 16x16 positions of a CIFAR-style network, 3 MiB for the 256 of 56x56 of a ResNet-50. Paths of
    this kind that read the same taps of the teacher share what is stored.
    """

    target_options = ()

    def layer_target(self, layer: str, teacher: Tensor) -> Tensor:
        return teacher


class WidthMatchedPath(WholeMapPath):
    """A path between whole maps whose student maps pass an adapter where the numbers of channels differ."""

    adapters: nn.ModuleDict

    def build(self, student: Probe, teacher: Probe) -> None:
        """Build an adapter for each pair of different widths; there is none for the others."""
        widths = {pair.layer: (student[pair.student].channels, teacher[pair.teacher].channels) for pair in self.pairs}
        self.adapters = nn.ModuleDict(
            {key(layer): self.make_adapter(own, other) for layer, (own, other) in widths.items() if own != other}
        )

    def adapt(self, layer: str, student: Tensor) -> Tensor:
        """Bring a student map to the teacher's number of channels."""
        if key(layer) not in self.adapters:
            return student
        adapted: Tensor = self.adapters[key(layer)](student)
        return adapted

    @abstractmethod
    def make_adapter(self, in_channels: int, out_channels: int) -> nn.Module:
        """Return a new module from the student's number of channels to the teacher's."""
