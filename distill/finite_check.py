"""Whether losses are finite, without making a GPU wait for the answer."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from distill.step import Step


class NonFiniteLossError(ArithmeticError):
    """A loss became NaN or infinite; the message names path and step."""


@dataclass(frozen=True)
class _Waiting:
    step: int
    epoch: int
    losses: Step
    is_finite: Tensor
    copied: torch.cuda.Event | None


class FiniteCheck:
    """Looks at the total loss of every batch, on a GPU a few batches later, when the device has long passed them.

    On a CPU a batch is checked before its backward pass, so nothing is ever updated by a loss that is not finite. On a
    GPU up to ``delay`` updates may have been made by then; no checkpoint or report lies between, because the end of an
    epoch calls :meth:`finish`.

    Args:
        layer_keys: names of the layers in :class:`Step`.
        device: of the losses.
        rank: of this process, for the message.
        delay: batches that may wait to be looked at; ``None``: none on a CPU, two elsewhere.
    """

    def __init__(self, layer_keys: Sequence[str], device: torch.device, *, rank: int, delay: int | None = None) -> None:
        self._layer_keys = tuple(layer_keys)
        self._device = device
        self._rank = rank
        self._delay = (0 if device.type == "cpu" else 2) if delay is None else delay
        self._waiting: deque[_Waiting] = deque()

    def add(self, losses: Step, *, step: int, epoch: int) -> None:
        """Take one batch's losses, and look at the one of ``delay`` batches ago.

        Args:
            losses: of the batch.
            step: number of the optimiser step that they belong to.
            epoch: counted from 1.

        Raises:
            NonFiniteLossError: a loss is NaN or infinite.
        """
        detached = losses.detach()
        is_finite, copied = self._copied(torch.isfinite(detached.total))
        self._waiting.append(_Waiting(step, epoch, detached, is_finite, copied))
        while len(self._waiting) > self._delay:
            self._look(self._waiting.popleft())

    def finish(self) -> None:
        """Look at all that wait.

        Raises:
            NonFiniteLossError: a loss is NaN or infinite.
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
        if batch.is_finite:
            return
        values = torch.cat([batch.losses.task.reshape(1), batch.losses.layers]).tolist()
        names = ["the task", *(f"path {key}" for key in self._layer_keys)]
        guilty = [f"{name} is {value}" for name, value in zip(names, values, strict=True) if not math.isfinite(value)]
        weights = dict(zip(self._layer_keys, batch.losses.weights.tolist(), strict=True))
        cause = "; ".join(guilty) or f"every loss is finite, but the weights are {weights}"
        raise NonFiniteLossError(
            f"the loss is not finite at step {batch.step} (epoch {batch.epoch}, rank {self._rank}): {cause}"
        )
