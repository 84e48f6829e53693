from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from torch import nn

from orchestrator.hosts import TuneHost
from orchestrator.hosts.messages import report_in


@pytest.fixture
def assigned(monkeypatch):
    """Which GPUs Ray says it has assigned."""
    gpus: list[str] = []
    context = SimpleNamespace(get_accelerator_ids=lambda: {"GPU": gpus})
    monkeypatch.setattr("ray.get_runtime_context", lambda: context)
    threads = torch.get_num_threads()
    yield gpus
    torch.set_num_threads(threads)


def test_a_trial_is_one_rank_on_its_own_threads(assigned):
    host = TuneHost(cpus_per_worker=2, is_asked_to_stop=bool)
    assert (host.rank, host.world_size, host.device) == (0, 1, torch.device("cpu"))
    assert torch.get_num_threads() == 2
    module = nn.Linear(1, 1)
    assert host.prepare(module, find_unused_parameters=True) is module


def test_the_device_is_the_first_assigned_gpu_not_the_first_visible_one(assigned, monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    assert TuneHost(cpus_per_worker=1, is_asked_to_stop=bool).device == torch.device("cpu")
    assigned.append("3")  # Ray makes it the only visible one, which torch then calls 0
    assert TuneHost(cpus_per_worker=1, is_asked_to_stop=bool).device == torch.device("cuda", 0)


def test_reports_cross_ray_unchanged(assigned, monkeypatch):
    sent = []
    monkeypatch.setattr("ray.tune.report", sent.append)
    TuneHost(cpus_per_worker=1, is_asked_to_stop=bool).report({"epoch": 1, "train/loss/total": 0.1})
    assert [report_in(message) for message in sent] == [{"epoch": 1, "train/loss/total": 0.1}]


def test_the_wish_to_stop_is_the_driver_s(assigned):
    asked = iter([False, True])
    host = TuneHost(cpus_per_worker=1, is_asked_to_stop=lambda: next(asked))
    assert [host.should_stop(), host.should_stop()] == [False, True]
