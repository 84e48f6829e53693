"""What paths share that need the teacher's map as it is."""

from __future__ import annotations

from torch import Tensor

from distill.paths.base import FeaturePath


class WholeMapPath(FeaturePath):
    """A feature path whose target is the teacher's map itself, ``[batch, channel, height, width]``.

    The largest target there is. Paths of this kind that read the same taps share one column of the store.
    """

    target_options = ()

    def layer_target(self, layer: str, teacher: Tensor) -> Tensor:
        return teacher
