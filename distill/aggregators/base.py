"""The contract of an aggregator: named losses in, one scalar to descend out."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from torch import Tensor, nn

Granularity = Literal["path", "layer"]


@dataclass(frozen=True)
class Losses:
    """The losses of one batch on this rank.

    Attributes:
        task: the supervised loss, scalar.
        paths: ``[key]``, one loss for each of ``keys``, with gradient.
        keys: ``path`` names, or ``path.layer`` names under layer granularity, in the order given to ``connect``.
        progress: share of the training that is done, from 0 to 1.
    """

    task: Tensor
    paths: Tensor
    keys: tuple[str, ...]
    progress: Tensor | float


@dataclass(frozen=True)
class Aggregate:
    """What an aggregator makes of the losses.

    Attributes:
        total: scalar whose gradient is the update to make.
        weights: ``[key]``, detached: what multiplied each loss in this step, with ``alpha_distill`` in it.
    """

    total: Tensor
    weights: Tensor


class Aggregator(nn.Module, ABC):
    """Combines the named losses of all paths and the task into one scalar whose gradient is the update to make.

    An aggregator lives inside the module that DDP wraps, so parameters it owns stay identical on every rank. One that
    computes from loss *values* (LogSum) must use :func:`distill.distributed.mean` of them.
    """

    accepts_negative: ClassVar[bool] = True
    """Whether the aggregator stays bounded when a loss can go below zero."""

    keys: tuple[str, ...] = ()

    def __init__(self, granularity: Granularity = "path") -> None:
        super().__init__()
        if granularity not in ("path", "layer"):
            raise ValueError(f"granularity must be 'path' or 'layer', found {granularity!r}")
        self.granularity = granularity

    def connect(self, layers: Mapping[str, Sequence[str]], negative: Sequence[str] = ()) -> None:
        """Learn which losses will come, and allocate state for them.

        Args:
            layers: the layer names of each path, by path name.
            negative: names of the paths that declare they can be negative.

        Raises:
            ValueError: this aggregator would diverge on a path that can be negative.
        """
        if negative and not self.accepts_negative:
            raise ValueError(
                f"{type(self).__name__} sends the weight of a loss below zero to infinity (its optimum is log(loss)), "
                f"and these paths can be negative: {', '.join(negative)}; use Equal or Fixed for them"
            )
        if self.granularity == "layer":
            self.keys = tuple(f"{path}.{layer}" for path, names in layers.items() for layer in names)
        else:
            self.keys = tuple(layers)
        self.allocate(len(self.keys))

    def allocate(self, num_keys: int) -> None:
        """Create parameters and buffers for ``num_keys`` losses; most aggregators need none."""

    @abstractmethod
    def forward(self, losses: Losses) -> Aggregate:
        """Combine one batch's losses."""

    def after_step(self) -> None:
        """Hook behind each optimiser step, on every rank alike."""

    def parameter_options(self) -> dict[str, Any]:
        """Return optimiser options (``lr``, ``weight_decay``) of this aggregator's own parameter group."""
        return {}


def weighted_sum(losses: Losses, weights: Tensor) -> Aggregate:
    """Return ``task + weights . paths``; the weights are constants of the step."""
    weights = weights.detach()
    return Aggregate(losses.task + (weights * losses.paths).sum(), weights)
