"""The few collective operations that the core needs; without a process group each is the identity."""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor


def is_active() -> bool:
    """Whether a process group of more than one rank exists."""
    return dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1


def rank() -> int:
    """Return this process's number among all ranks."""
    return dist.get_rank() if is_active() else 0


def mean(values: Tensor) -> Tensor:
    """Return the mean of ``values`` over all ranks, detached; one small all-reduce."""
    values = values.detach()
    if not is_active():
        return values
    return sum(values) / dist.get_world_size()


def mean_(values: Tensor) -> Tensor:
    """Replace ``values``, which take part in no backward pass, by their mean over all ranks, without a copy."""
    if is_active():
        dist.all_reduce(values)
        values.div_(dist.get_world_size())
    return values


def sum(values: Tensor) -> Tensor:
    """Return the sum of ``values`` over all ranks, detached; one small all-reduce."""
    values = values.detach()
    if not is_active():
        return values
    total = values.clone()
    dist.all_reduce(total)
    return total


def broadcast(values: Tensor) -> Tensor:
    """Return rank 0's ``values``, detached: what a solver finds may differ in the last digits between machines."""
    values = values.detach()
    if not is_active():
        return values
    values = values.clone()
    dist.broadcast(values, src=0)
    return values


def gather_rows(rows: Tensor) -> Tensor:
    """Return the rows of all ranks, in rank order; every rank has equally many.

    Gradient flows into this rank's own rows alone, multiplied by the number of ranks. Where a loss is computed from the
    result alike on every rank, the mean of all ranks' gradients is then that of the loss.
    """
    if not is_active():
        return rows
    gathered: Tensor = _GatherRows.apply(rows)
    return gathered


class _GatherRows(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, rows: Tensor) -> Tensor:
        rows = rows.contiguous()
        shares = [torch.empty_like(rows) for _ in range(dist.get_world_size())]
        dist.all_gather(shares, rows)
        return torch.cat(shares)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        own = gradients[0].chunk(dist.get_world_size())[dist.get_rank()]
        return own * dist.get_world_size()


def any_rank(flag: bool, device: torch.device) -> bool:
    """Return whether ``flag`` is set on any rank, so that all ranks decide alike."""
    if not is_active():
        return flag
    value = torch.tensor([float(flag)], device=device)
    dist.all_reduce(value, op=dist.ReduceOp.MAX)
    return bool(value.item() > 0)


def gather_objects(value: Any) -> list[Any]:
    """Return every rank's ``value``, in rank order."""
    if not is_active():
        return [value]
    gathered: list[Any] = [None] * dist.get_world_size()
    dist.all_gather_object(gathered, value)
    return gathered


def barrier() -> None:
    """Wait for all ranks."""
    if is_active():
        dist.barrier()


def broadcast_buffers(module: torch.nn.Module) -> None:
    """Copy rank 0's buffers (BatchNorm's running statistics) to every rank."""
    if not is_active():
        return
    for buffer in module.buffers():
        dist.broadcast(buffer, src=0)
