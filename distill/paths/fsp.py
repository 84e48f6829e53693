"""Flow of the solution procedure: which features of one stage go with which of the next?"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from distill.adapter import Adapter
from distill.batch import Batch
from distill.paths.base import FeaturePath, TapChoice, Taps, Target, key, no_autocast, widen
from distill.paths.sizes import pooled_alike
from distill.taps import Probe, TapPair

MIN_STAGES = 2


class FSP(FeaturePath):
    """Matches how one stage turns into the next: the mean products of the channels of both, called FSP matrix.

    For each transition between consecutive stages, with features ``a`` and ``b`` of the two, ``[channel, height,
    width]``, the larger of them brought to the smaller height and width by adaptive average pooling::

        G[i, j] = mean over positions of a[i] * b[j]            # [channels of a, channels of b]
        loss = mean over batch, i and j of (G_student - G_teacher)^2

    Each transition is a layer, named after both stages: ``layer1-layer2``. Student and teacher may differ in height and
    width, since ``G`` is a mean. Where they differ in channels, an adapter of that stage brings the student's map to
    the teacher's number.

    Where the teacher has few positions for its channels ``G`` is never formed. With the pooled maps as ``[channel,
    position]`` matrices ``A`` and ``B``, the former divided by the number of positions, ``G = A B'`` and
    ``<A B', C D'> = <A' C, B' D>``, so ``||G_student - G_teacher||^2`` needs ``[position, position]`` matrices alone.
    The difference cancels as the loss nears zero (absolute error about 1e-7 of ``||G||^2`` in float32, more under
    TF32), so it is cut off at zero. The target of such a layer is ``A`` above ``B``, ``[batch, channels of a + channels
    of b, position]``, else ``G``, ``[batch, channels of a, channels of b]``: for the last two stages of a ResNet-50 on
    images of 32 x 32 it is 0.2 MB a sample instead of 8.

    ``G`` is not normalised: the loss grows with the fourth power of the features' scale.

    Source: Yim et al. 2017, *A gift from knowledge distillation: fast optimization, network minimization and transfer
    learning* (CVPR), equations 1 and 2.

    Departures: the paper takes the first and the last layer *within* a stage, which have one size; we take the ends of
    consecutive stages, as RepDistiller and others do (some take the stem as the first). Where sizes differ the paper,
    like torchdistill, pools by maximum; we average, as RepDistiller does. The paper sums over ``i`` and
    ``j``; we take the mean, as RepDistiller does. The paper demands equal widths; the adapter is ours. The paper
    trains with this loss in an initialisation stage alone, before the student learns its task: ``schedule: {end: 0.2}``
    comes near, though the task's loss counts from the start.

    Args:
        taps: ``auto`` (every stage), or a list of two or more ``{student: NAME, teacher: NAME}`` in order of depth.
    """

    target_options = ()

    adapters: nn.ModuleDict

    def __init__(self, taps: TapChoice = "auto") -> None:
        super().__init__(taps)
        self._few_positions: dict[str, bool] = {}

    @property
    def layers(self) -> tuple[str, ...]:
        """Names of the transitions, one less than pairs."""
        return tuple(f"{one.layer}-{other.layer}" for one, other in pairwise(self.pairs))

    def pairs_of(self, layer: str) -> tuple[TapPair, ...]:
        """Return both ends of a transition."""
        return dict(zip(self.layers, pairwise(self.pairs), strict=True))[layer]

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
        # The choice looks at the teacher alone, so that one stored target serves every student.
        for layer, (one, other) in zip(
            self.layers, pairwise(teacher[pair.teacher] for pair in self.pairs), strict=True
        ):
            positions = min(one.height, other.height) * min(one.width, other.width)
            self._few_positions[layer] = 2 * positions * (one.channels + other.channels) < one.channels * other.channels

    def target(self, taps: Taps) -> Target:
        """Return the teacher's matrix of every transition, or what it is the product of."""
        maps = super().target(taps)
        with no_autocast(maps[self.pairs[0].layer]):
            return {
                layer: torch.cat(sides, dim=1) if self._few_positions[layer] else sides[0] @ sides[1].mT
                for layer, sides in self._transitions(maps).items()
            }

    def forward(self, taps: Taps, target: Target, batch: Batch) -> dict[str, Tensor]:
        """Return the distance between student and teacher in every transition."""
        maps = {pair.layer: widen(taps[pair.student]) for pair in self.pairs}
        with no_autocast(maps[self.pairs[0].layer]):
            transitions = self._transitions({layer: self._adapt(layer, features) for layer, features in maps.items()})
            losses = {}
            for layer, (first, second) in transitions.items():
                wanted = widen(target[layer])
                if self._few_positions[layer]:
                    both = wanted[:, : first.shape[1]], wanted[:, first.shape[1] :]
                    losses[layer] = _distance((first, second), both).clamp_min(0).mean()
                else:
                    losses[layer] = self.layer_loss(layer, first @ second.mT, wanted)
            return losses

    def layer_target(self, layer: str, teacher: Tensor) -> Tensor:
        """Return a stage's map, out of which :meth:`target` makes the matrices."""
        return teacher

    def layer_loss(self, layer: str, student: Tensor, target: Tensor) -> Tensor:
        """Compare the matrices of a transition, ``[batch, channels of a, channels of b]``."""
        return F.mse_loss(student, target)

    def _adapt(self, layer: str, features: Tensor) -> Tensor:
        if key(layer) not in self.adapters:
            return features
        adapted: Tensor = cast(Adapter, self.adapters[key(layer)])(features)
        return adapted

    def _transitions(self, maps: Mapping[str, Tensor]) -> dict[str, tuple[Tensor, Tensor]]:
        """Return, by transition, the matrices whose product is the FSP matrix, ``[batch, channel, position]``."""
        stages = [maps[pair.layer] for pair in self.pairs]
        return {layer: _sides(*both) for layer, both in zip(self.layers, pairwise(stages), strict=True)}


def _sides(first: Tensor, second: Tensor) -> tuple[Tensor, Tensor]:
    one, other = (maps.flatten(2) for maps in pooled_alike(first, second))
    return one / one.shape[2], other


def _distance(student: tuple[Tensor, Tensor], teacher: tuple[Tensor, Tensor]) -> Tensor:
    """Return each sample's mean squared difference of the products, ``[batch]``, without forming them."""
    own, wanted, cross = _inner(student, student), _inner(teacher, teacher), _inner(student, teacher)
    return (own + wanted - 2 * cross) / (student[0].shape[1] * student[1].shape[1])


def _inner(one: tuple[Tensor, Tensor], other: tuple[Tensor, Tensor]) -> Tensor:
    """Return ``<A B', C D'> = <A' C, B' D>`` of each sample."""
    return ((one[0].mT @ other[0]) * (one[1].mT @ other[1])).sum(dim=(1, 2))
