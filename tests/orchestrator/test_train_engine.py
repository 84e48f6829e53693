"""Real Ray Train on one small cluster, with training functions that don't train."""

from __future__ import annotations

import signal
import sys
from types import SimpleNamespace
from typing import Any

import pytest
import toy_training
from ray.exceptions import RayActorError
from ray.train import ControllerError, WorkerGroupError

from orchestrator import train_engine
from orchestrator.demand import Demand


@pytest.fixture
def payload(tmp_path) -> dict[str, Any]:
    return {"key": "run", "notes": str(tmp_path), "epochs": 3, "level": 1.0}


@pytest.mark.ray
def test_two_workers_report_in_order_and_return_rank_0_s_result(ray_cluster, payload, tmp_path, monkeypatch):
    """Two attempts die on one rank, so that the same run shows that a group is started again: one dies while the
    training function is brought to the workers, which Train takes for an error of its own, and one in the training.
    """
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    reports: list[dict[str, Any]] = []
    handler = signal.getsignal(signal.SIGINT)
    result = train_engine.run(
        toy_training.DeadlyToReceive(toy_training.two_of_a_kind, notes=str(tmp_path), deaths=1),
        payload | {"deaths": 2},
        demand=Demand(workers=2),
        on_report=reports.append,
        max_failures=2,
    )
    assert result["status"] == "finished", result
    assert {name: result[name] for name in ("status", "rank", "total", "backend")} == {
        "status": "finished",
        "rank": 0,
        "total": 3.0,
        "backend": "gloo",
    }
    assert [report["epoch"] for report in reports] == [1, 2, 3]
    assert len(list(tmp_path.glob("death-*.json"))) == 2
    assert signal.getsignal(signal.SIGINT) is handler
    assert not list(tmp_path.glob("distillery-ray-*"))


def test_a_training_that_raises_is_a_failed_run(payload, monkeypatch):
    def fail(trainer: Any) -> None:
        raise WorkerGroupError("all", {0: RuntimeError("the disk is full")})

    box = SimpleNamespace(take=lambda key: [])
    monkeypatch.setattr("ray.train.torch.TorchTrainer.fit", fail)
    result = train_engine.run(toy_training.climb, payload, demand=Demand(), on_report=lambda report: None, mailbox=box)
    assert result == {"status": "failed", "reason": "RuntimeError: the disk is full"}


def test_workers_that_die_while_they_start_are_tried_again(payload, monkeypatch):
    """Train takes this for an error of its own controller, and gives up at once."""
    errors: list[Exception] = [ControllerError(RayActorError()), ControllerError(RayActorError())]

    def start(trainer: Any) -> SimpleNamespace:
        if errors:
            raise errors.pop()
        return SimpleNamespace(return_value={"status": "finished"})

    monkeypatch.setattr("ray.train.torch.TorchTrainer.fit", start)
    options = {"demand": Demand(), "on_report": lambda report: None, "mailbox": SimpleNamespace(take=lambda key: [])}
    result = train_engine.run(toy_training.climb, payload, max_failures=1, **options)
    assert (result["status"], errors) == ("failed", [])
    assert "died" in result["reason"]
    errors[:] = [ControllerError(RayActorError()), ControllerError(RayActorError())]
    assert train_engine.run(toy_training.climb, payload, max_failures=2, **options) == {"status": "finished"}


def test_what_the_driver_raises_on_a_report_ends_the_run(payload, monkeypatch):
    def refuse(report: dict[str, Any]) -> None:
        raise OSError("no space left for the records")

    asked: list[str] = []
    box = SimpleNamespace(take=lambda key: [{"epoch": 1}], ask_to_stop=asked.append)
    monkeypatch.setattr("ray.train.torch.TorchTrainer.fit", lambda trainer: SimpleNamespace(return_value={}))
    with pytest.raises(OSError, match="no space left for the records"):
        train_engine.run(toy_training.climb, payload, demand=Demand(), on_report=refuse, mailbox=box)
    assert asked == ["run"]


def test_an_interrupt_ends_the_run_as_an_interrupt(payload, monkeypatch):
    """Train's handler ends its workers and then the whole process, and stays in place afterwards."""

    def interrupted(trainer: Any) -> None:
        signal.signal(signal.SIGINT, lambda *call: None)
        sys.exit(0)

    box = SimpleNamespace(take=lambda key: [])
    handler = signal.getsignal(signal.SIGINT)
    monkeypatch.setattr("ray.train.torch.TorchTrainer.fit", interrupted)
    with pytest.raises(KeyboardInterrupt):
        train_engine.run(toy_training.climb, payload, demand=Demand(), on_report=lambda report: None, mailbox=box)
    assert signal.getsignal(signal.SIGINT) is handler
