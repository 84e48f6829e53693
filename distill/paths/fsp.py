"""Flow of the solution procedure: which features of one stage go with which of the next?"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from typing import cast

import torch.nn.functional as F
from torch import Tensor, nn

from distill.adapter import Adapter
from distill.batch import Batch
from distill.paths.base import FeaturePath, Taps, Target, key, no_autocast, widen
from distill.taps import Probe

MIN_STAGES = 2


class FSP(FeaturePath):
    """Matches how one stage turns into the next: the mean products of the channels of both, called FSP matrix.

    For each transition between consecutive stages, with features ``a`` and ``b`` of the two, ``[channel, height,
    width]``, the larger of them brought to the smaller height and width by adaptive average pooling::

        G[i, j] = mean over positions of a[i] * b[j]            # [channels of a, channels of b]
        loss = mean over batch, i and j of (G_student - G_teacher)^2

    Each transition is a layer, named after both stages: ``layer1-layer2``. The target is the teacher's ``G``,
    ``[batch, channels of a, channels of b]``. Student and teacher may differ in height and width, since ``G`` is a
    mean. Where they differ in channels, an adapter of that stage brings the student's map to the teacher's number.

    ``G`` is not normalised: the loss grows with the fourth power of the features' scale.

    Source: Yim et al. 2017, *A gift from knowledge distillation: fast optimization, network minimization and transfer
    learning* (CVPR), equations 1 and 2.

    Departures: the paper takes the first and the last layer *within* a stage, which have one size; we take the ends of
    consecutive stages, as RepDistiller and others do (torchdistill pools by maximum). The paper sums over ``i`` and
    ``j``; we take the mean, as RepDistiller does. The paper demands equal widths; the adapter is ours. The paper
    trains with this loss in an initialisation stage alone, before the student learns its task: ``schedule: {end: 0.2}``
    comes near, though the task's loss counts from the start.

    Args:
        taps: ``auto`` (every stage), or a list of two or more ``{student: NAME, teacher: NAME}`` in order of depth.
    """

    target_options = ()

    adapters: nn.ModuleDict

    @property
    def layers(self) -> tuple[str, ...]:
        """Names of the transitions, one less than pairs."""
        return tuple(f"{one.layer}-{other.layer}" for one, other in pairwise(self.pairs))

    def build(self, student: Probe, teacher: Probe) -> None:
        """Build an adapter for each stage whose widths differ.

        Raises:
            ValueError: there is one stage, and so no transition.
        """
        if len(self.pairs) < MIN_STAGES:
            raise ValueError(
                "FSP needs two stages or more, because it compares how one turns into the next, found "
                f"{len(self.pairs)} ({', '.join(pair.layer for pair in self.pairs)}); name more taps"
            )
        widths = {pair.layer: (student[pair.student].channels, teacher[pair.teacher].channels) for pair in self.pairs}
        self.adapters = nn.ModuleDict(
            {key(layer): Adapter(own, wanted) for layer, (own, wanted) in widths.items() if own != wanted}
        )

    def target(self, taps: Taps) -> Target:
        """Return the teacher's matrix of every transition."""
        maps = super().target(taps)
        with no_autocast(maps[self.pairs[0].layer]):
            return self._matrices(maps)

    def forward(self, taps: Taps, target: Target, batch: Batch) -> dict[str, Tensor]:
        """Return :meth:`layer_loss` of every transition."""
        maps = {pair.layer: widen(taps[pair.student]) for pair in self.pairs}
        with no_autocast(maps[self.pairs[0].layer]):
            matrices = self._matrices({layer: self._adapt(layer, features) for layer, features in maps.items()})
            return {layer: self.layer_loss(layer, matrices[layer], widen(target[layer])) for layer in self.layers}

    def layer_target(self, layer: str, teacher: Tensor) -> Tensor:
        """Return a stage's map, out of which :meth:`target` makes the matrices."""
        return teacher

    def layer_loss(self, layer: str, student: Tensor, target: Tensor) -> Tensor:
        """Compare the matrices of a transition."""
        return F.mse_loss(student, target)

    def _adapt(self, layer: str, features: Tensor) -> Tensor:
        if key(layer) not in self.adapters:
            return features
        adapted: Tensor = cast(Adapter, self.adapters[key(layer)])(features)
        return adapted

    def _matrices(self, maps: Mapping[str, Tensor]) -> dict[str, Tensor]:
        stages = [maps[pair.layer] for pair in self.pairs]
        return {layer: flow(*both) for layer, both in zip(self.layers, pairwise(stages), strict=True)}


def flow(first: Tensor, second: Tensor) -> Tensor:
    """Return the FSP matrix of two ``[batch, channel, height, width]`` maps, ``[batch, channel, channel]``."""
    height, width = (min(first.shape[axis], second.shape[axis]) for axis in (2, 3))
    one, other = (_pool(maps, (height, width)).flatten(2) for maps in (first, second))
    return one @ other.mT / (height * width)


def _pool(maps: Tensor, size: tuple[int, int]) -> Tensor:
    if maps.shape[2:] == size:
        return maps
    pooled: Tensor = F.adaptive_avg_pool2d(maps, size)
    return pooled
