"""A training as one of several Ray Train workers."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import ray.train
import ray.train.torch
import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from distill import distributed
from orchestrator.hosts.messages import pack_report


class TrainHost:
    """The rank of a worker group that this process is; gloo connects CPUs, NCCL connects GPUs.

    BatchNorm on several GPUs is converted to SyncBatchNorm, so that a batch is normalised as on one device.
    SyncBatchNorm doesn't exist for CPUs: there each rank normalises its share, and rank 0's running statistics count.

    Args:
        cpus_per_worker: threads for torch in each worker; they belong to a run's identity, because sums depend on them.
        is_asked_to_stop: whether the driver wants the run to end after the epoch; asked by rank 0.
        sync_batchnorm: convert BatchNorm or not; None: on GPUs.

    Raises:
        ValueError: ``sync_batchnorm`` is asked for on CPUs.
    """

    def __init__(
        self,
        *,
        cpus_per_worker: int,
        is_asked_to_stop: Callable[[], bool],
        sync_batchnorm: bool | None = None,
    ) -> None:
        torch.set_num_threads(cpus_per_worker)
        context = ray.train.get_context()
        self.rank: int = context.get_world_rank()
        self.world_size: int = context.get_world_size()
        self.device: torch.device = ray.train.torch.get_device()
        self._is_asked_to_stop = is_asked_to_stop
        on_gpu = self.device.type == "cuda"
        if sync_batchnorm and not on_gpu:
            raise ValueError(
                "sync_batchnorm: SyncBatchNorm works on GPUs only, and these workers have none; leave it out"
            )
        self._sync_batchnorm = on_gpu if sync_batchnorm is None else sync_batchnorm

    def prepare(self, module: nn.Module, *, find_unused_parameters: bool) -> nn.Module:
        """Return the module wrapped in DDP, or as it is where this is the only rank."""
        if self.world_size == 1:
            return module
        if self._sync_batchnorm:
            module = _with_sync_batchnorm(module)
        wrapped = DistributedDataParallel(
            module,
            device_ids=[self.device.index] if self.device.type == "cuda" else None,
            find_unused_parameters=find_unused_parameters,
        )
        # Once they agree at the start; rank 0's are those that count, and Trainer shares them at the end of an epoch.
        wrapped.broadcast_buffers = False
        return wrapped

    def report(self, metrics: Mapping[str, Any]) -> None:
        """Hand over one epoch's metrics; a barrier, and rank 0's metrics are those that count."""
        ray.train.report(pack_report(metrics) if self.rank == 0 else {})

    def should_stop(self) -> bool:
        """Whether the driver asked the run to end; every rank has to ask, and all get the same answer."""
        return distributed.any_rank(self.rank == 0 and self._is_asked_to_stop(), self.device)


def _with_sync_batchnorm(module: nn.Module) -> nn.Module:
    """Convert, and keep the hooks: torch makes new BatchNorm modules and forgets the taps that read the old ones."""
    before = dict(module.named_modules())
    converted: nn.Module = nn.SyncBatchNorm.convert_sync_batchnorm(module)  # type: ignore[no-untyped-call]
    for name, new in converted.named_modules():
        old = before[name]
        if new is not old:
            # The very dictionaries: the handles that remove the hooks point to them.
            new._forward_hooks = old._forward_hooks
            new._forward_pre_hooks = old._forward_pre_hooks
            new._forward_hooks_with_kwargs = old._forward_hooks_with_kwargs
            new._forward_pre_hooks_with_kwargs = old._forward_pre_hooks_with_kwargs
            new._forward_hooks_always_called = old._forward_hooks_always_called
    return converted
