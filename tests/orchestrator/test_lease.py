from __future__ import annotations

import json
import threading
import time
from dataclasses import replace

import pytest

from orchestrator.lease import LEASE, Lease
from orchestrator.lock import lock
from orchestrator.lock_held_error import LockHeldError
from orchestrator.lock_holder import LockHolder
from orchestrator.storage import Storage


@pytest.fixture
def uri(tmp_path):
    """A folder of this disk behind fsspec, which to ``Storage`` is as remote as any other URI."""
    return f"local://{tmp_path}/sweep"


def lease(uri: str, *, watch: float = 0.3) -> Lease:
    return Lease(uri, command="sweep x.yaml", heartbeat_seconds=0.05, settle_seconds=0.05, watch_seconds=watch)


def put(uri: str, **changes) -> None:
    data = {**replace(LockHolder.me("old"), **changes).to_dict(), "mark": "theirs"}
    Storage(uri).write_text(LEASE, json.dumps(data))


ELSEWHERE = {"host": "elsewhere", "machine": "other boot"}


def test_the_lease_is_held_and_given_back(uri):
    with lease(uri):
        with pytest.raises(LockHeldError, match=r"sweep x\.yaml"), lease(uri):
            pass
        assert Storage(uri).exists(LEASE)
    assert not Storage(uri).exists(LEASE)
    with lease(uri):
        pass


def test_of_ten_simultaneous_takers_exactly_one_wins(uri):
    won, lost = [], []
    start, end = threading.Barrier(10), threading.Event()

    def take() -> None:
        start.wait()
        try:
            with Lease(uri, command="x", heartbeat_seconds=60, settle_seconds=0.5):
                won.append(1)
                end.wait(20)
        except LockHeldError:
            lost.append(1)

    threads = [threading.Thread(target=take) for _ in range(10)]
    for thread in threads:
        thread.start()
    deadline = time.monotonic() + 10
    while len(won) + len(lost) < 10 and time.monotonic() < deadline:
        time.sleep(0.01)
    end.set()
    for thread in threads:
        thread.join()
    assert (len(won), len(lost)) == (1, 9)


def test_a_dead_process_of_this_machine_is_taken_over_at_once(uri):
    put(uri, process_start="1")
    with lease(uri, watch=30):
        pass


def test_a_fresh_lease_of_another_machine_is_respected(uri):
    put(uri, **ELSEWHERE)
    with pytest.raises(LockHeldError, match="elsewhere"), lease(uri):
        pass


def test_an_old_lease_that_does_not_move_is_taken_over(uri):
    put(uri, **ELSEWHERE, heartbeat=time.time() - 61)
    with lease(uri):
        pass


def test_an_old_lease_that_moves_is_respected(uri):
    """A clock that jumped by a day makes a living holder look dead."""
    put(uri, **ELSEWHERE, heartbeat=time.time() - 86400)
    timer = threading.Timer(0.2, lambda: put(uri, **ELSEWHERE, heartbeat=time.time() - 86399))
    timer.start()
    with pytest.raises(LockHeldError, match="elsewhere"), lease(uri, watch=2.0):
        pass
    timer.join()


def test_the_lease_is_renewed_and_keeps_its_start(uri):
    with lease(uri):
        before = json.loads(Storage(uri).read_text(LEASE))
        deadline = time.monotonic() + 5
        after = before
        while after == before and time.monotonic() < deadline:
            time.sleep(0.02)
            after = json.loads(Storage(uri).read_text(LEASE))
        assert after["heartbeat"] > before["heartbeat"]
        assert after["started"] == before["started"]


def test_who_loses_the_lease_is_interrupted(uri):
    interrupted = False
    try:
        with lease(uri):
            put(uri, **ELSEWHERE)
            time.sleep(60)  # ended early by the interrupt
    except KeyboardInterrupt:
        interrupted = True
    assert interrupted
    assert json.loads(Storage(uri).read_text(LEASE))["mark"] == "theirs"


def test_a_uri_is_locked_by_a_lease(uri):
    assert isinstance(lock(uri, command="x"), Lease)
