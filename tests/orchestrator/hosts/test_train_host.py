"""What can be seen of one rank without a cluster; two real ranks meet in ``test_train_engine.py``."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from orchestrator.hosts import TrainHost
from orchestrator.hosts.messages import report_in
from orchestrator.hosts.train_host import _with_sync_batchnorm


@pytest.fixture
def worker(monkeypatch):
    """Make this process a worker of a group that is as large as it is told."""
    threads = torch.get_num_threads()

    def be(*, rank: int = 0, world_size: int = 1, device: str = "cpu", **options) -> TrainHost:
        context = SimpleNamespace(get_world_rank=lambda: rank, get_world_size=lambda: world_size)
        monkeypatch.setattr("ray.train.get_context", lambda: context)
        monkeypatch.setattr("ray.train.torch.get_device", lambda: torch.device(device))
        return TrainHost(**({"cpus_per_worker": 1, "is_asked_to_stop": bool} | options))

    yield be
    torch.set_num_threads(threads)


@pytest.fixture
def process_group(tmp_path):
    dist.init_process_group("gloo", init_method=f"file://{tmp_path}/group", rank=0, world_size=1)
    yield
    dist.destroy_process_group()


def test_a_worker_has_its_place_and_its_threads(worker):
    host = worker(rank=1, world_size=3, cpus_per_worker=2)
    assert (host.rank, host.world_size, host.device) == (1, 3, torch.device("cpu"))
    assert torch.get_num_threads() == 2


def test_a_single_worker_needs_no_ddp(worker):
    module = nn.Linear(1, 1)
    assert worker().prepare(module, find_unused_parameters=False) is module


@pytest.mark.parametrize("unused", [True, False])
def test_several_workers_train_in_ddp_with_plain_batchnorm_on_cpus(worker, process_group, unused):
    module = nn.Sequential(nn.Conv2d(1, 1, 1), nn.BatchNorm2d(1))
    prepared = worker(world_size=2).prepare(module, find_unused_parameters=unused)
    assert isinstance(prepared, DistributedDataParallel)
    assert prepared.module is module
    assert type(module[1]) is nn.BatchNorm2d
    assert not prepared.broadcast_buffers  # the trainer shares rank 0's at the end of an epoch
    assert prepared.find_unused_parameters is unused


def test_sync_batchnorm_refuses_a_cpu(worker):
    with pytest.raises(ValueError, match="sync_batchnorm: SyncBatchNorm works on GPUs only"):
        worker(world_size=2, sync_batchnorm=True)


def test_batchnorm_is_synchronised_on_gpus_unless_told_otherwise(worker):
    assert worker(world_size=2, device="cuda:0")._sync_batchnorm is True
    assert worker(world_size=2, device="cuda:0", sync_batchnorm=False)._sync_batchnorm is False
    assert worker(world_size=2)._sync_batchnorm is False


def test_taps_outlive_the_conversion_of_batchnorm():
    """torch replaces the modules that the hooks hang on, and leaves the hooks behind."""
    module = nn.Sequential(nn.Conv2d(1, 2, 1), nn.BatchNorm2d(2)).eval()
    seen = []
    handle = module[1].register_forward_hook(lambda *call: seen.append(call[2].shape))
    weight = module[1].weight
    converted = _with_sync_batchnorm(module)
    assert type(converted[1]) is nn.SyncBatchNorm
    assert converted[1].weight is weight
    converted(torch.ones(1, 1, 2, 2))
    assert seen == [torch.Size([1, 2, 2, 2])]
    handle.remove()
    converted(torch.ones(1, 1, 2, 2))
    assert len(seen) == 1


def test_rank_0_reports_and_the_others_come_to_the_barrier(worker, monkeypatch):
    sent = []
    monkeypatch.setattr("ray.train.report", sent.append)
    for rank in (0, 1):
        worker(rank=rank, world_size=2).report({"epoch": 1})
    assert [report_in(message) for message in sent] == [{"epoch": 1}, None]


def test_rank_0_alone_asks_whether_to_stop(worker):
    asked = []

    def ask() -> bool:
        asked.append(1)
        return True

    assert worker(rank=0, world_size=2, is_asked_to_stop=ask).should_stop() is True
    assert worker(rank=1, world_size=2, is_asked_to_stop=ask).should_stop() is False  # no group here to hear rank 0
    assert len(asked) == 1
