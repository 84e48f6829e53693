"""What paths share that compare a whole image at a time: the deepest features, averaged over positions."""

from __future__ import annotations

from torch import Tensor

from distill.paths.base import FeaturePath


class PooledPath(FeaturePath):
    """A feature path between pooled features; ``taps: auto`` means the deepest ones, which the classifiers see.

    Of pyramids that is the coarsest level. The target is the teacher's mean over positions, ``[batch, channel]``.
    Widths and sizes of both models may differ.
    """

    target_options = ()
    only_last = True
    one_level = True

    def layer_target(self, layer: str, teacher: Tensor) -> Tensor:
        return pooled(teacher)


def pooled(maps: Tensor) -> Tensor:
    """Return the mean over positions of ``[batch, channel, height, width]``, ``[batch, channel]``."""
    return maps.mean(dim=(2, 3))
