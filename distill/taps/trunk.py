"""Where a model's stages end."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import TypeVar

from torch import nn

from distill.taps.activation import Activation
from distill.taps.tap import OUTPUT, Tap

Item = TypeVar("Item")

MAX_ISOTROPIC = 4
"""Stages into which the blocks of a model with a single resolution are split, as many as a ResNet has."""


class Trunk:
    """The main line of a model, as a chain of units: the modules that follow each other from the image to the head.

    A unit is a module that lies within one stage: a block, a group of blocks of one resolution, or a layer of its own.
    The chain is found from the root down: a module that holds several stages is replaced by the modules in it. It holds
    several where composite modules in it, those with two or more weight tensors, end at two or more resolutions, or
    modules of any kind at three: a block that halves the map (a convolution, then one of stride 2) shows two.

    Args:
        activations: all modules' activations, in the order in which they ended.
        num_classes: channels of the logits; 0 where no class scores are among the activations.
    """

    def __init__(self, activations: Sequence[Activation], num_classes: int) -> None:
        self._activations = activations
        self._taps = {activation.name: activation.tap for activation in activations if activation.tap is not None}
        self._children = _children(activations)
        self._scores = self._class_scores(num_classes)
        self._units = [unit for unit in self._chain(OUTPUT) if self._is_feature(unit)]

    def stages(self) -> tuple[Tap, ...]:
        """Return the tap at the end of each stage, from the highest resolution to the lowest.

        The rule: for each stride (as a power of two) the last unit that ends there with a map of more than one place
        and can be tapped. The stages before the first composite one are the stem and do not count, so that a ResNet
        has ``layer1`` to ``layer4``; a model without a composite unit (VGG, AlexNet) keeps all, and so does one that
        would be left with a single stage. Of several modules that return a stage's map, the outermost is named.

        A model with one stage alone (ViT) is split into up to four, evenly along its blocks: the largest group of
        composite siblings of one class and one shape, nearest the root.
        """
        ends = {self._taps[unit.name].octave: unit for unit in self._units if self._taps[unit.name].is_map}
        stages = [ends[octave] for octave in sorted(ends)]
        num_stem = next((index for index, unit in enumerate(stages) if _is_composite(unit.module)), 0)
        without_stem = stages[num_stem:]
        if len(without_stem) == 1:
            blocks = self._blocks(without_stem[0])
            if blocks:
                return tuple(self._taps[block.name] for block in spread(blocks, MAX_ISOTROPIC))
        return tuple(self._outermost(unit) for unit in (without_stem if len(without_stem) > 1 else stages))

    def line(self) -> list[Activation]:
        """Return the whole chain from the image to the deepest map, with the units that cannot be tapped."""
        chain = list(self._chain(OUTPUT))
        ends = [index for index, unit in enumerate(chain) if self._is_map(unit)]
        return chain[: ends[-1] + 1] if ends else []

    def last(self) -> Tap | None:
        """Return the deepest feature: the map that enters global pooling, or what enters the last layer."""
        if self._units:
            return self._outermost(self._units[-1])
        before = [activation for activation in self._activations[: self._final_layer()] if not activation.refusal]
        return before[-1].tap if before else None

    def _chain(self, name: str) -> Iterator[Activation]:
        for child in self._children[name]:
            if self._holds_stages(child.name):
                yield from self._chain(child.name)
            else:
                yield child

    def _holds_stages(self, name: str) -> bool:
        children = self._children[name]
        composite = [child for child in children if _is_composite(child.module)]
        if len(self._octaves(composite)) > 1 or len(self._octaves(children)) > 2:
            return True
        return any(self._holds_stages(child.name) for child in composite)

    def _octaves(self, activations: Sequence[Activation]) -> set[int]:
        taps = (self._taps[activation.name] for activation in activations if activation.name in self._taps)
        return {tap.octave for tap in taps if tap.is_map}

    def _is_feature(self, unit: Activation) -> bool:
        """Whether a unit may end a stage: a tappable map that is neither class scores nor global pooling."""
        return not unit.refusal and self._is_map(unit)

    def _is_map(self, unit: Activation) -> bool:
        if unit.name not in self._taps or unit.name in self._scores or self._taps[unit.name].layout == "vector":
            return False
        return not self._is_global_pooling(unit)

    def _is_global_pooling(self, unit: Activation) -> bool:
        # A dropout after it returns the very same tensor in evaluation mode: what made the tensor counts.
        maker = next(other for other in self._activations if other.content == unit.content)
        if next(maker.module.parameters(), None) is not None:
            return False
        adaptive = (nn.AdaptiveAvgPool2d, nn.AdaptiveMaxPool2d)
        kinds = adaptive if self._taps[unit.name].is_map else (*adaptive, nn.AvgPool2d)
        return any(isinstance(module, kinds) for module in maker.module.modules())

    def _class_scores(self, num_classes: int) -> set[str]:
        """Name what the last layer with weights returns, and all after it, of as many channels as there are classes."""
        tail = {activation.name for activation in self._activations[self._final_layer() :]}
        return {name for name, tap in self._taps.items() if name in tail and tap.channels == num_classes}

    def _final_layer(self) -> int:
        layers = (
            index
            for index, activation in enumerate(self._activations)
            if not self._children[activation.name] and _num_weights(activation.module) > 0
        )
        return max(layers, default=len(self._activations))

    def _blocks(self, stage: Activation) -> list[Activation]:
        siblings: dict[tuple[str, type[nn.Module]], list[Activation]] = defaultdict(list)
        shape = self._taps[stage.name].shape
        for activation in self._activations:
            tap = self._taps.get(activation.name)
            if tap is not None and tap.shape == shape and not activation.refusal and _is_composite(activation.module):
                siblings[activation.name.rpartition(".")[0], type(activation.module)].append(activation)
        groups = [group for group in siblings.values() if len(group) > 1]
        return min(groups, key=lambda group: (_depth(group[0]), -len(group)), default=[])

    def _outermost(self, unit: Activation) -> Tap:
        same = [other for other in self._activations if other.content == unit.content and not other.refusal]
        return self._taps[min(same, key=_depth).name]  # of equally deep ones the first, which made the tensor


def spread(items: Sequence[Item], number: int) -> list[Item]:
    """Return ``number`` of the items, or all if there are fewer, evenly spaced and ending with the last one."""
    count = min(number, len(items))
    return [items[-(-(index + 1) * len(items) // count) - 1] for index in range(count)]


def _children(activations: Sequence[Activation]) -> defaultdict[str, list[Activation]]:
    """Return the modules directly below each one; containers that are never called themselves are looked through."""
    names = {activation.name for activation in activations}
    children: defaultdict[str, list[Activation]] = defaultdict(list)
    for activation in activations:
        parent = activation.name.rpartition(".")[0]
        while parent and parent not in names:
            parent = parent.rpartition(".")[0]
        children[parent].append(activation)
    return children


def _depth(activation: Activation) -> int:
    return activation.name.count(".")


def _num_weights(module: nn.Module) -> int:
    return sum(parameter.dim() > 1 for parameter in module.parameters())


def _is_composite(module: nn.Module) -> bool:
    return _num_weights(module) > 1
