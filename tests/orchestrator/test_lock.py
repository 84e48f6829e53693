from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from orchestrator.lock import HOLDER, LOCK, Lock, lock
from orchestrator.lock_held_error import LockHeldError
from orchestrator.lock_holder import LockHolder

ROOT = Path(__file__).parents[2]

DRIVER = """
import sys, time
from pathlib import Path
time.sleep(float(sys.argv[2]))
from orchestrator.lock import lock
from orchestrator.lock_held_error import LockHeldError
assert not {"torch", "ray", "pyarrow", "mlflow"} & set(sys.modules)
try:
    with lock(sys.argv[1], command="sweep x.yaml"):
        print("won", flush=True)
        time.sleep(float(sys.argv[3]))
except LockHeldError as error:
    print(error, flush=True)
    sys.exit(2)
"""


def start(folder: Path, *, delay: float = 0.0, hold: float = 60.0) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", DRIVER, str(folder), str(delay), str(hold)],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )


def test_of_twenty_simultaneous_starts_exactly_one_wins(tmp_path):
    seed = random.randrange(10**6)
    draw = random.Random(seed)
    processes = [start(tmp_path, delay=draw.uniform(0, 0.3)) for _ in range(20)]
    losers, winner = [], None
    try:
        deadline = time.monotonic() + 30
        while len(losers) < 19 and time.monotonic() < deadline:
            losers = [process for process in processes if process.poll() is not None]
            time.sleep(0.02)
        assert len(losers) == 19, f"seed {seed}"
        (winner,) = (process for process in processes if process.poll() is None)
        assert winner.stdout is not None
        assert winner.stdout.readline() == "won\n"
        for loser in losers:
            assert loser.returncode == 2
            assert loser.stdout is not None
            message = loser.stdout.read()
            assert f"process {winner.pid} on " in message, f"seed {seed}: {message}"
            assert "sweep x.yaml" in message
            assert "--resume" in message
    finally:
        for process in processes:
            process.kill()
            process.wait()


def test_the_second_driver_ends_within_five_seconds(tmp_path):
    first = start(tmp_path)
    try:
        assert first.stdout is not None
        first.stdout.readline()
        began = time.monotonic()
        with pytest.raises(LockHeldError, match=f"process {first.pid} on .*, since 20"), Lock(tmp_path, command="x"):
            pass
        assert time.monotonic() - began < 5
    finally:
        first.kill()
        first.communicate()


def test_the_lock_of_a_killed_holder_is_free(tmp_path):
    first = start(tmp_path)
    assert first.stdout is not None
    first.stdout.readline()
    first.send_signal(signal.SIGKILL)
    first.communicate()
    assert (tmp_path / HOLDER).exists()
    with Lock(tmp_path, command="second"):
        holder = LockHolder.read(tmp_path / HOLDER)
        assert holder is not None
        assert holder.pid == os.getpid()
        assert holder.command == "second"
    assert not (tmp_path / HOLDER).exists()


def note(folder: Path, holder: LockHolder) -> None:
    (folder / HOLDER).write_text(json.dumps(holder.to_dict()))


def test_a_recycled_process_id_is_not_the_holder(tmp_path):
    """The note names a living process, this one, but with the start time of one that ended."""
    note(tmp_path, replace(LockHolder.me("old"), process_start="1"))
    with Lock(tmp_path, command="new"):
        pass


def test_a_living_holder_counts_where_the_file_system_has_no_locks(tmp_path):
    note(tmp_path, LockHolder.me("old"))
    with pytest.raises(LockHeldError, match="old"), Lock(tmp_path, command="new"):
        pass


def test_a_holder_on_another_machine_counts_while_its_heartbeat_is_fresh(tmp_path):
    note(tmp_path, replace(LockHolder.me("old"), host="elsewhere", machine="other boot", process_start="1"))
    with pytest.raises(LockHeldError, match=r"on elsewhere.* s ago, and after 60 s"), Lock(tmp_path, command="new"):
        pass
    os.utime(tmp_path / HOLDER, (time.time() - 61, time.time() - 61))
    with Lock(tmp_path, command="new"):
        pass


def test_a_reboot_frees_the_lock(tmp_path):
    note(tmp_path, replace(LockHolder.me("old"), machine="other boot"))
    with Lock(tmp_path, command="new"):
        pass


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"pid": 1}'])
def test_a_damaged_note_is_no_holder(tmp_path, text):
    (tmp_path / HOLDER).write_text(text)
    with Lock(tmp_path, command="new"):
        pass


def test_a_file_system_without_locks_falls_back_to_the_note(tmp_path, monkeypatch):
    def unsupported(file: int, operation: int) -> None:
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr("fcntl.flock", unsupported)
    with Lock(tmp_path, command="first"):
        with pytest.raises(LockHeldError, match="first"), Lock(tmp_path, command="second"):
            pass
        assert (tmp_path / HOLDER).exists()


def test_the_lock_is_given_back_after_an_error(tmp_path):
    with pytest.raises(RuntimeError), Lock(tmp_path, command="first"):
        raise RuntimeError
    with Lock(tmp_path / "again", command="second"):
        pass
    with Lock(tmp_path, command="third"):
        assert (tmp_path / LOCK).exists()


def test_the_heartbeat_is_kept(tmp_path, monkeypatch):
    monkeypatch.setattr("orchestrator.lock.HEARTBEAT_SECONDS", 0.02)
    with Lock(tmp_path, command="first"):
        os.utime(tmp_path / HOLDER, (1, 1))
        deadline = time.monotonic() + 5
        while (tmp_path / HOLDER).stat().st_mtime < 2 and time.monotonic() < deadline:
            time.sleep(0.01)
        assert (tmp_path / HOLDER).stat().st_mtime > 2


def test_a_path_and_a_file_uri_are_one_lock(tmp_path):
    with lock(str(tmp_path), command="first"), pytest.raises(LockHeldError), lock(f"file://{tmp_path}", command="x"):
        pass
