from __future__ import annotations

import subprocess
import sys

from orchestrator.tracking.file_lock import FileLock


def test_one_holder_at_a_time(tmp_path):
    first, second = FileLock(tmp_path / "lock"), FileLock(tmp_path / "lock")
    assert first.acquire()
    assert not second.acquire()
    first.release()
    assert second.acquire()
    second.release()


def test_a_killed_holder_holds_nothing(tmp_path):
    holder = subprocess.Popen(
        [
            sys.executable,
            "-c",
            f"import fcntl, time; f = open({str(tmp_path / 'lock')!r}, 'w'); fcntl.flock(f, fcntl.LOCK_EX);"
            "print('held', flush=True); time.sleep(60)",
        ],
        stdout=subprocess.PIPE,
    )
    assert holder.stdout is not None
    assert holder.stdout.readline() == b"held\n"
    lock = FileLock(tmp_path / "lock")
    assert not lock.acquire()
    holder.kill()
    holder.wait()
    holder.stdout.close()
    assert lock.acquire()
    lock.release()
