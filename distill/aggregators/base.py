"""The contract of an aggregator: named losses in, one scalar to descend out."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, Literal, TypedDict

import torch
from torch import Tensor, nn

from distill.aggregators.gradients import Gradients, SharedGradients
from distill.aggregators.modifiers.base import Modifier
from distill.aggregators.names import listed, meant
from distill.aggregators.needs import Needs
from distill.gradient_scope import ParameterScope, Scope

Granularity = Literal["path", "layer"] | Mapping[str, Sequence[str]]
"""What has a weight of its own: each ``path``, each ``layer`` of each path, or groups of paths by name."""


class Common(TypedDict, total=False):
    """The options that every aggregator shares, for constructors that pass them on."""

    granularity: Granularity
    modifiers: Sequence[Modifier]


@dataclass(frozen=True)
class Losses:
    """The losses of one batch on this rank.

    Attributes:
        task: the supervised loss, scalar.
        paths: ``[key]``, one loss for each of ``keys``, with gradient.
        keys: names of what has a weight of its own, in the order given to ``connect``: ``path``, ``path.layer``, or the
            names of groups.
        progress: share of the training that is done, from 0 to 1.
        gradients: what was asked for by :class:`~distill.aggregators.needs.Needs`, by scope.
    """

    task: Tensor
    paths: Tensor
    keys: tuple[str, ...]
    progress: Tensor | float
    gradients: Mapping[Scope, Gradients] = field(default_factory=dict)

    def shared(self, scope: ParameterScope) -> SharedGradients:
        """Return the gradients in parameters of the student.

        Raises:
            ValueError: they were not asked for.
        """
        if scope not in self.gradients:
            found = ", ".join(self.gradients) or "none"
            raise ValueError(f"gradients in scope {scope!r} must be declared in needs; those that were: {found}")
        return self.gradients[scope].in_parameters()


@dataclass(frozen=True)
class Aggregate:
    """What an aggregator makes of the losses.

    Attributes:
        total: scalar whose gradient is the update to make.
        weights: ``[key]``, detached: what multiplied each loss in this step, with ``alpha_distill`` in it.
        task_weight: scalar, detached: what multiplied the task's loss; ``None``: it counts as it is.
    """

    total: Tensor
    weights: Tensor
    task_weight: Tensor | None = None


class Aggregator(nn.Module, ABC):
    """Combines the named losses of all paths and the task into one scalar whose gradient is the update to make.

    An aggregator lives inside the module that DDP wraps, so parameters it owns stay identical on every rank. One that
    computes from loss *values* (LogSum) must use :func:`distill.distributed.mean` of them.

    The life of an aggregator: constructed from options alone; :meth:`connect` once the paths know their layers; then,
    each step, :meth:`advance`, :meth:`combine`, and :meth:`after_step` behind the optimiser's step;
    :meth:`after_epoch` at the end of each epoch. What it needs beyond losses it declares as :attr:`needs`.

    Args:
        granularity: ``path``, ``layer``, or a mapping of a group's name to the names of its paths; the losses of a
            group are summed, and every path belongs to one.
        modifiers: what changes the weights before they count, in this order.

    Raises:
        ValueError: ``granularity`` is none of these.
    """

    accepts_negative: ClassVar[bool] = True
    """Whether the aggregator stays bounded when a loss can go below zero."""
    weighs: ClassVar[bool] = True
    """Whether its update is that of a weighted sum, so that modifiers can change the weights."""
    every: int = 1
    """Steps from one look at gradients to the next; an option may decide it."""
    weighs_task: bool = False
    """Whether the task's loss gets a weight too, instead of 1; an option may decide it."""
    separate: ClassVar[bool] = True
    """Whether the weight of a loss depends on no other loss."""
    refused_options: ClassVar[tuple[str, ...]] = ()
    """Options shared by all that this one refuses: they are not offered."""
    compiles: ClassVar[bool] = True
    """Whether ``torch.compile`` can make it part of one graph; not where it takes gradients on the way."""

    keys: tuple[str, ...] = ()
    _key_of_layer: Tensor  # [layer]

    def __init__(self, granularity: Granularity = "path", modifiers: Sequence[Modifier] = ()) -> None:
        super().__init__()
        if isinstance(granularity, str) and granularity not in ("path", "layer"):
            raise ValueError(f"granularity must be 'path', 'layer' or a mapping of groups, found {granularity!r}")
        if not isinstance(granularity, str):
            _check_groups(granularity)
        if modifiers and not self.weighs:
            raise ValueError(f"modifiers change weights, and {type(self).__name__} has none")
        self.granularity = granularity
        self.modifiers = nn.ModuleList(modifiers)
        self._members: tuple[tuple[int, ...], ...] = ()

    @property
    def needs(self) -> Needs:
        """What the training has to provide, for this aggregator and its modifiers."""
        needs = self.own_needs
        for modifier in self._modifiers():
            needs = needs | modifier.needs
        return needs

    @property
    def key_kind(self) -> str:
        """What has a weight of its own, in a word: ``path``, ``layer`` or ``group``."""
        return self.granularity if isinstance(self.granularity, str) else "group"

    @property
    def own_needs(self) -> Needs:
        """What the training has to provide for this aggregator alone; most need losses and no more."""
        return Needs()

    @property
    def uncompilable(self) -> tuple[str, ...]:
        """Names of what ``torch.compile`` cannot make part of one graph: this aggregator, or modifiers of it."""
        own = [] if self.compiles and not self.own_needs.gradients else [self]
        looking = [modifier for modifier in self._modifiers() if modifier.needs.gradients or not modifier.compiles]
        return tuple(type(part).__name__ for part in (*own, *looking))

    def connect(self, layers: Mapping[str, Sequence[str]], negative: Sequence[str] = ()) -> None:
        """Learn which losses will come, and allocate state for them.

        Args:
            layers: the layer names of each path, by path name.
            negative: names of the paths that declare they can be negative.

        Raises:
            ValueError: this aggregator would diverge on a path that can be negative; a group names no path, or a path
                is not in exactly one group.
        """
        self.check_paths(list(layers), negative)
        owners = [path for path, names in layers.items() for _ in names]
        if self.granularity == "layer":
            self.keys = tuple(f"{path}.{layer}" for path, names in layers.items() for layer in names)
            self._members = tuple((number,) for number in range(len(owners)))
        else:
            groups = {path: [path] for path in layers} if self.granularity == "path" else self._groups(list(layers))
            self.keys = tuple(groups)
            members = ([number for number, path in enumerate(owners) if path in paths] for paths in groups.values())
            self._members = tuple(map(tuple, members))
        places = {number: key for key, numbers in enumerate(self._members) for number in numbers}
        spread = torch.tensor([places[number] for number in range(len(owners))], dtype=torch.int64)
        self.register_buffer("_key_of_layer", spread, persistent=False)
        for modifier in self._modifiers():
            modifier.connect(self.keys)
        self.allocate(len(self.keys))

    def check_paths(self, paths: Sequence[str], negative: Sequence[str] = ()) -> None:
        """Refuse what can be refused before the layers of the paths are known; :meth:`connect` does so, too.

        Args:
            paths: their names.
            negative: the names of those that declare they can be negative.

        Raises:
            ValueError: as :meth:`connect`.
        """
        if negative and not self.accepts_negative:
            raise ValueError(
                f"{type(self).__name__} takes losses from zero up: below, a logarithm or a ratio of losses has no "
                "meaning and can send a weight to infinity, "
                f"and these paths can be negative: {', '.join(negative)}; use Equal or Fixed for them"
            )
        if not isinstance(self.granularity, str):
            self._groups(paths)

    def allocate(self, num_keys: int) -> None:
        """Create parameters and buffers for ``num_keys`` losses; most aggregators need none."""

    def advance(self, progress: float) -> None:
        """Hear before a step how far the training is, from 0 to 1; not part of what may be compiled."""
        for modifier in self._modifiers():
            modifier.advance(progress)

    def sums(self, layers: Sequence[Tensor], like: Tensor) -> Tensor:
        """Return the losses ``[key]`` of all layers' losses; a tensor ``like`` another where there are none."""
        sums = [torch.stack([layers[number] for number in numbers]).sum() for numbers in self._members]
        return torch.stack(sums) if sums else like.new_zeros(0)

    def spread(self, weights: Tensor) -> Tensor:
        """Return the weight ``[layer]`` of every layer, of the weights ``[key]``."""
        return weights[self._key_of_layer]

    def places(self) -> tuple[tuple[int, ...], ...]:
        """Return for each key the numbers of its layers."""
        return self._members

    def combine(self, losses: Losses) -> Aggregate:
        """Combine one batch's losses, with what the modifiers make of the weights."""
        if not len(self.modifiers):
            return self(losses)  # type: ignore[no-any-return]
        # The value as it was, and what the aggregator itself learns from; the gradient of the new weights alone. Their
        # difference from the old ones would lose all digits where a weight of 1e8 becomes 1.
        constant = losses.paths.detach()
        aggregate: Aggregate = self(replace(losses, paths=constant))
        weights = aggregate.weights
        for modifier in self._modifiers():
            weights = modifier.reweigh(weights, losses)
        total = aggregate.total + (weights * (losses.paths - constant)).sum()
        return replace(aggregate, total=total, weights=weights)

    @abstractmethod
    def forward(self, losses: Losses) -> Aggregate:
        """Combine one batch's losses; where there are modifiers, ``losses.paths`` come without gradient."""

    @property
    def wants_held_out(self) -> bool:
        """Whether the held-out gradients are wanted after the step that is being made; on every rank alike."""
        return bool(self.needs.held_out_gradients)

    def after_step(self, again: Tensor | None = None, held_out: Mapping[Scope, Tensor] | None = None) -> None:
        """Hook behind each optimiser step, on every rank alike.

        Args:
            again: ``[key]``, the losses of the step's batch once more, means over the ranks, where :attr:`needs` asks.
            held_out: by scope, ``[parameter]``, the gradient of the task's loss on held-out samples in the parameters
                that the step has made, a mean over the ranks; where :attr:`wants_held_out`.
        """

    def after_epoch(self) -> None:
        """Hook behind each epoch, on every rank alike."""

    def parameter_options(self) -> dict[str, Any]:
        """Return optimiser options (``lr``, ``weight_decay``) of this aggregator's own parameter group."""
        return {}

    def _modifiers(self) -> list[Modifier]:
        return list(self.modifiers)  # type: ignore[arg-type]

    def _groups(self, paths: Sequence[str]) -> dict[str, list[str]]:
        assert not isinstance(self.granularity, str)
        groups = {name: list(names) for name, names in self.granularity.items()}
        named = [path for names in groups.values() for path in names]
        unknown = [path for path in named if path not in paths]
        missing = [path for path in paths if path not in named]
        repeated = sorted({path for path in named if named.count(path) > 1})
        if unknown or missing or repeated or not all(groups.values()):
            findings: dict[str, Sequence[str]] = {
                "paths in none": missing,
                "in several": repeated,
                "names of no path": unknown,
                "empty groups": [name for name, members in groups.items() if not members],
                "paths": paths or ["none"],
            }
            rule = "granularity: every path must be in one group, and no group may be empty"
            raise ValueError(f"{rule}; {listed(findings)}{meant(unknown, paths)}")
        return groups


def _check_groups(groups: object) -> None:
    if not isinstance(groups, Mapping):
        raise ValueError(f"granularity must be 'path', 'layer' or a mapping of groups, found {groups!r}")
    for name, paths in groups.items():
        if isinstance(paths, str) or not isinstance(paths, Sequence):
            raise ValueError(f"granularity.{name} must be a list of paths' names, found {paths!r}")


def weighted_sum(losses: Losses, weights: Tensor) -> Aggregate:
    """Return ``task + weights . paths``; the weights are constants of the step."""
    weights = weights.detach()
    return Aggregate(losses.task + (weights * losses.paths).sum(), weights)
