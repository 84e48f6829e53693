"""Whether losses are finite, and above zero where they have to be, without making a GPU wait for the answer."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from distill.step import Step


class NonFiniteLossError(ArithmeticError):
    """A loss became NaN or infinite; the message names path and step."""


class NegativeLossError(ArithmeticError):
    """A loss went below zero that its path declares never does; the message names path, value and step."""


ROUNDING = 1e-4
"""How far below zero a sum of float32 numbers may come out that is zero by its formula: a divergence of student and
teacher that agree, times the square of a temperature, comes to about -1e-6."""


@dataclass(frozen=True)
class _Waiting:
    step: int
    epoch: int
    losses: Step
    is_sound: Tensor
    copied: torch.cuda.Event | None


class FiniteCheck:
    """Looks at the total loss of every batch, on a GPU a few batches later, when the device has long passed them.

    On a CPU a batch is checked before its backward pass, so nothing is ever updated by a loss that is not finite. On a
    GPU up to ``delay`` updates may have been made by then; no checkpoint or report lies between, because the end of an
    epoch calls :meth:`finish`.

    Where the aggregator takes no losses below zero, none of its paths may have one: it was refused unless all declared
    so. A path that declares it and does otherwise is found here, of whose loss a logarithm would be NaN, or a ratio
    without meaning. Under gradient accumulation the mean over the step's batches is looked at.

    Args:
        layer_keys: names of the layers in :class:`Step`.
        device: of the losses.
        rank: of this process, for the message.
        delay: batches that may wait to be looked at; ``None``: none on a CPU, two elsewhere.
        accepts_negative: whether losses below zero are right, as the aggregator says; further below than by rounding.
    """

    def __init__(
        self,
        layer_keys: Sequence[str],
        device: torch.device,
        *,
        rank: int,
        delay: int | None = None,
        accepts_negative: bool = True,
    ) -> None:
        self._layer_keys = tuple(layer_keys)
        self._device = device
        self._rank = rank
        self._delay = (0 if device.type == "cpu" else 2) if delay is None else delay
        self._lowest = -math.inf if accepts_negative else -ROUNDING
        self._waiting: deque[_Waiting] = deque()

    def add(self, losses: Step, *, step: int, epoch: int) -> None:
        """Take one batch's losses, and look at the one of ``delay`` batches ago.

        Args:
            losses: of the batch.
            step: number of the optimiser step that they belong to.
            epoch: counted from 1.

        Raises:
            NonFiniteLossError: a loss is NaN or infinite.
            NegativeLossError: a loss is below zero where none may be.
        """
        detached = losses.detach()
        is_sound, copied = self._copied(torch.isfinite(detached.total) & ~(detached.layers < self._lowest).any())
        self._waiting.append(_Waiting(step, epoch, detached, is_sound, copied))
        while len(self._waiting) > self._delay:
            self._look(self._waiting.popleft())

    def finish(self) -> None:
        """Look at all that wait.

        Raises:
            NonFiniteLossError: a loss is NaN or infinite.
            NegativeLossError: a loss is below zero where none may be.
        """
        while self._waiting:
            self._look(self._waiting.popleft())

    def _copied(self, flag: Tensor) -> tuple[Tensor, torch.cuda.Event | None]:
        if self._device.type != "cuda":
            return flag, None
        pinned = torch.empty((), dtype=torch.bool, pin_memory=True)
        pinned.copy_(flag, non_blocking=True)
        event = torch.cuda.Event()  # type: ignore[no-untyped-call]
        event.record()
        return pinned, event

    def _look(self, batch: _Waiting) -> None:
        if batch.copied is not None:
            batch.copied.synchronize()
        if batch.is_sound:
            return
        values = torch.cat([batch.losses.task.reshape(1), batch.losses.layers]).tolist()
        names = ["the task", *(f"path {key}" for key in self._layer_keys)]
        guilty = [f"{name} is {value}" for name, value in zip(names, values, strict=True) if not math.isfinite(value)]
        if not guilty:
            self._refuse_negative(batch, values[1:])
        weights = dict(zip(self._layer_keys, batch.losses.weights.tolist(), strict=True))
        cause = "; ".join(guilty) or f"every loss is finite, but the weights are {weights}"
        advice = "" if math.isfinite(values[0]) else "; often the learning rate is too high"
        raise NonFiniteLossError(
            f"the loss is not finite at step {batch.step} (epoch {batch.epoch}, rank {self._rank}): {cause}{advice}"
        )

    def _refuse_negative(self, batch: _Waiting, layers: Sequence[float]) -> None:
        """Raise an error where one of these finite losses is below what it may be."""
        named = zip(self._layer_keys, layers, strict=True)
        guilty = [f"path {key} is {value}" for key, value in named if value < self._lowest]
        if guilty:
            raise NegativeLossError(
                f"a loss is below zero at step {batch.step} (epoch {batch.epoch}, rank {self._rank}), which its path "
                f"declares it never is, and the aggregator relies on it: {'; '.join(guilty)}; declare "
                "non_negative = False in the path's class, and use Equal or Fixed for it"
            )


def check_measured(metrics: Mapping[str, float] | None, *, split: str) -> None:
    """Refuse a trained student whose loss on a split is not finite, though each of its training was.

    The last update and running statistics, which only evaluation reads, show nowhere else: to the classes a NaN is a
    wrong answer like any other, and the run would end with metrics that look like those of a poor student.

    Args:
        metrics: what was measured on the split; ``None``: there is none.
        split: its name, for the message.

    Raises:
        NonFiniteLossError: the loss is NaN or infinite.
    """
    loss = (metrics or {}).get("loss", 0.0)
    if not math.isfinite(loss):
        raise NonFiniteLossError(
            f"the trained student's loss on the {split} split is {loss}: its weights or running statistics are not "
            "finite; often the learning rate is too high"
        )
