"""The training side: what it costs, and what it survives."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
import time

import pytest
from mlflow.tracking import MlflowClient

from orchestrator.tracking.file_lock import FileLock
from orchestrator.tracking.mirror import Mirror
from orchestrator.tracking.mirror_process import own_environment
from orchestrator.tracking.target import Target, spool_directory
from orchestrator.tracking.tracker import Tracker

NUM_METRICS = 1000
TIMEOUT_SECONDS = 1.0


@pytest.fixture
def offline(storage, target):
    with Tracker(spool_directory(storage, "digits"), target=target, mirror=False) as tracker:
        yield tracker


def _record(tracker):
    tracker.start_run("a1", "run", params={"lr": "0.1"})
    waited, worked = time.perf_counter(), time.process_time()
    for step in range(1, NUM_METRICS + 1):
        tracker.metrics("a1", {"train/loss/total": 1.0 / step}, step=step)
    # Other processes may share the cores, so that the clock on the wall only shows that nothing waited for the store.
    assert time.process_time() - worked < 0.05
    assert time.perf_counter() - waited < 1.0
    tracker.end_run("a1", "FINISHED")


def _assert_all_is_there_once(uri, run_id):
    history = MlflowClient(uri).get_metric_history(run_id, "train/loss/total")
    assert [(m.step, m.value) for m in history] == [(s, 1.0 / s) for s in range(1, NUM_METRICS + 1)]


@pytest.mark.parametrize("kind", ["unused_port", "hanging_port", "locked"])
def test_broken_store_costs_nothing_but_a_sync(storage, target, request, caplog, kind):
    lock = None
    if kind == "locked":
        broken = target
        lock = sqlite3.connect(storage / "mlflow.db", isolation_level=None)
        lock.execute("BEGIN EXCLUSIVE")
    else:
        broken = Target.beside(storage, "digits", f"http://127.0.0.1:{request.getfixturevalue(kind)}")
    directory = spool_directory(storage, "digits")
    tracker = Tracker(directory, target=broken)
    _record(tracker)
    child = tracker._mirror.pid
    assert tracker.run_id("a1") is None
    while f'"mirror_pid": {child}' not in _content(directory / "cursor.json"):
        time.sleep(0.05)  # the time to import MLflow says nothing about the store
    before = time.perf_counter()
    num_waiting = tracker.close(TIMEOUT_SECONDS)
    assert time.perf_counter() - before < TIMEOUT_SECONDS + 2.5
    assert num_waiting == NUM_METRICS + 2
    assert f"lacks {NUM_METRICS + 2} operations" in caplog.text
    assert "distillery sync digits" in caplog.text
    with pytest.raises(ProcessLookupError):
        os.kill(child, 0)
    if lock is not None:
        lock.execute("ROLLBACK")
        lock.close()
    mirror = Mirror(directory, target)
    assert mirror.send() == NUM_METRICS + 2
    _assert_all_is_there_once(target.tracking_uri, mirror.cursor.runs["a1"])
    assert Mirror(directory, target).send() == 0


def _content(file):
    return file.read_text() if file.exists() else ""


def test_healthy_store_has_everything_when_close_returns(storage, target):
    directory = spool_directory(storage, "digits")
    with Tracker(directory, target=target) as tracker:
        _record(tracker)
        tracker.start_run("b2", "never ended")
        child = tracker._mirror.pid
        assert tracker.close() == 0
        assert tracker.run_id("a1") is not None
    with pytest.raises(ProcessLookupError):
        os.kill(child, 0)
    _assert_all_is_there_once(target.tracking_uri, tracker.run_id("a1"))
    # Nobody runs it any more.
    assert MlflowClient(target.tracking_uri).get_run(tracker.run_id("b2")).info.status == "KILLED"


def test_killed_sweep_leaves_no_process_and_no_running_run(storage, target):
    directory = spool_directory(storage, "digits")
    script = f"""
import os, pathlib, signal, time
from orchestrator.tracking import Target, Tracker
target = Target.beside(pathlib.Path({str(storage)!r}), "digits")
tracker = Tracker(pathlib.Path({str(directory)!r}), target=target)
tracker.start_run("a1", "run")
tracker.metrics("a1", {{"loss": 1.0}}, step=1)
print(tracker._mirror.pid, flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""
    sweep = subprocess.run([sys.executable, "-c", script], env=own_environment(), capture_output=True, check=False)
    assert sweep.returncode == -signal.SIGKILL
    child = int(sweep.stdout)
    deadline = time.monotonic() + 30
    ended = FileLock(directory / "mirror.lock")
    while time.monotonic() < deadline:
        if f'"mirror_pid": {child}' in _content(directory / "cursor.json") and ended.acquire():
            break
        time.sleep(0.1)
    ended.release()
    mirror = Mirror(directory, target)
    assert mirror.send() == 0
    run = MlflowClient(target.tracking_uri).get_run(mirror.cursor.runs["a1"])
    assert run.info.status == "KILLED"
    assert run.data.metrics == {"loss": 1.0}


def test_second_process_is_refused(offline):
    with pytest.raises(ValueError, match="only one process may record"):
        Tracker(offline.directory, target=offline.target, mirror=False)


def test_keys_are_checked(offline):
    with pytest.raises(ValueError, match="run key: must be letters"):
        offline.start_run("it's", "run")
    with pytest.raises(ValueError, match="must name a run that was started; found 'b2'"):
        offline.metrics("b2", {"loss": 1.0}, step=1)
    with pytest.raises(ValueError, match="must name a run that was started; found 'sweep'"):
        offline.start_run("a1", "run", parent="sweep")


def test_process_that_cannot_start_costs_nothing_but_a_sync(storage, target, monkeypatch, caplog):
    monkeypatch.setattr(sys, "executable", "/no/python")
    tracker = Tracker(spool_directory(storage, "digits"), target=target)
    tracker.start_run("a1", "run")
    assert tracker.close() == 1
    assert "cannot start the process that writes to MLflow" in caplog.text


def test_recording_imports_neither_mlflow_nor_torch():
    script = "import sys, orchestrator.tracking; print({'mlflow', 'torch', 'ray'} & set(sys.modules))"
    done = subprocess.run(
        [sys.executable, "-c", script], env=own_environment(), capture_output=True, text=True, check=True
    )
    assert done.stdout == "set()\n"
