"""Kills, power cuts and full disks lose nothing that was committed, and leave nothing half written."""

import errno
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from checkpoint_samples import memory_filesystem, names, save

import distill
import distill.folders.remote as remote
from distill.checkpoint import Checkpoints
from distill.folders import LocalFolder


def test_order_of_writing_survives_a_power_cut(tmp_path, monkeypatch):
    """Every file is flushed, then its directory, then renamed, then the directory that holds the name is flushed."""
    events, fsync, rename = [], os.fsync, os.rename

    def recording_fsync(descriptor):
        events.append(("flush", os.fstat(descriptor).st_ino))
        fsync(descriptor)

    def recording_rename(source, target):
        # at this moment, and not before, all must be on the disk
        contents = {entry.stat().st_ino: entry.name for entry in Path(source).iterdir()}
        events.append(("rename", contents, Path(source).stat().st_ino, Path(target).name))
        rename(source, target)

    store = Checkpoints(tmp_path / "new" / "run")
    monkeypatch.setattr(os, "fsync", recording_fsync)
    monkeypatch.setattr(os, "rename", recording_rename)
    save(store, 1)
    (position,) = [index for index, event in enumerate(events) if event[0] == "rename"]
    _, contents, directory, target = events[position]
    assert target == "epoch-0001"
    assert sorted(contents.values()) == ["manifest.json", "rows.bin", "state.pt"]
    before = [inode for _, inode in events[:position]]
    # the new directories above, outermost first; then the files, the manifest last; then their directory
    above = [path.stat().st_ino for path in (tmp_path, tmp_path / "new")]
    assert before[:2] == above
    assert sorted(before[2:4]) == sorted(inode for inode, name in contents.items() if name != "manifest.json")
    assert contents[before[4]] == "manifest.json"
    assert before[5:] == [directory]
    assert events[position + 1 :] == [("flush", (tmp_path / "new" / "run").stat().st_ino)]


WRITER = """
import os, sys, time
from distill.checkpoint import Checkpoints

def slowly(path):
    with path.open("wb") as file:
        for part in range(10):
            file.write(bytes([part]) * 1000)
            file.flush()
            time.sleep(0.0005)

def write():
    store = Checkpoints(sys.argv[1])
    found = store.latest()
    epoch = found.epoch if found else 0
    while True:
        epoch += 1
        store.save({"state.pt": {"epoch": epoch}, "slow.bin": slowly}, epoch=epoch, step=epoch, config_hash="abc")
        os.write(1, b"%d\\n" % epoch)

print("ready", flush=True)
for _ in sys.stdin:
    child = os.fork()
    if child == 0:
        write()
    print("child", child, flush=True)
    os.waitpid(child, 0)
    print("dead", flush=True)
"""


def test_kill_9_at_random_moments_loses_nothing_that_was_committed(tmp_path):
    generator = random.Random(0)
    server = subprocess.Popen(
        [sys.executable, "-c", WRITER, str(tmp_path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONPATH": str(Path(distill.__file__).parents[1]), "OMP_NUM_THREADS": "1"},
    )
    committed, torn = 0, 0

    def next_line() -> str:
        line = server.stdout.readline()
        assert line, "the writers' parent died"
        return line

    try:
        assert next_line() == "ready\n"
        for number in range(12):
            server.stdin.write("go\n")
            server.stdin.flush()
            lines = [next_line()]
            while len(lines) <= number % 3 or not any(line.startswith("child") for line in lines):
                lines.append(next_line())  # the child's number, and up to two commits
            time.sleep(generator.uniform(0, 0.03))
            (child,) = [int(line.split()[1]) for line in lines if line.startswith("child")]
            os.kill(child, signal.SIGKILL)
            while lines[-1] != "dead\n":
                lines.append(next_line())
            committed = max([committed, *(int(line) for line in lines if line.strip().isdigit())])
            torn += len(list(tmp_path.glob(".tmp-*")))
            found = Checkpoints(tmp_path).latest("abc")
            if found is not None:
                assert found.damaged == ()
                assert found.load("state.pt") == {"epoch": found.epoch}
            assert (found.epoch if found else 0) >= committed
    finally:
        server.stdin.close()
        server.wait(timeout=10)
        server.stdout.close()
    assert committed >= 12
    assert torn >= 1, "no kill hit a checkpoint being written: this test tested nothing"
    save(Checkpoints(tmp_path), committed + 5)
    assert [name for name in names(tmp_path) if not name.startswith("epoch-")] == []
    assert len(names(tmp_path)) == 2


def test_a_living_writer_is_waited_for_and_its_files_are_left_alone(tmp_path):
    first, second = Checkpoints(tmp_path), Checkpoints(tmp_path)
    second._folder = LocalFolder(tmp_path, entries=first._folder.entries, patience_seconds=0.1)

    def meanwhile(path):
        with pytest.raises(
            TimeoutError, match=r"is being written by another process for more than 0\.1 s: give each run"
        ):
            save(second, 1)
        path.write_bytes(b"mine")

    first.save({"x.bin": meanwhile}, epoch=2, step=2, config_hash="abc")
    assert first.latest().path("x.bin").read_bytes() == b"mine"


def test_uploads_commit_with_the_manifest(monkeypatch):
    """A writer killed before any of its files is in place leaves no checkpoint, and the next writer cleans up."""
    filesystem, path = memory_filesystem()
    store = Checkpoints((filesystem, path))
    save(store, 1)
    filesystem.create_dir(f"{path}/logs")
    copy = shutil.copyfileobj
    for survivors in range(3):  # two files and the manifest
        calls = []

        class Killed(BaseException):
            pass

        def dying(source, sink, length, survivors=survivors, calls=calls, killed=Killed):
            if len(calls) == survivors:
                raise killed
            calls.append(sink)
            copy(source, sink, length)

        monkeypatch.setattr(remote.shutil, "copyfileobj", dying)
        with pytest.raises(Killed):
            save(store, 2)
        monkeypatch.undo()
        # a file system that closes a broken stream may leave an empty or partial file; a killed process leaves none
        if survivors == 2:
            filesystem.delete_file(f"{path}/epoch-0002/manifest.json")
        assert "epoch-0002" in names((filesystem, path))
        found = store.latest()
        assert (found.epoch, found.damaged) == (1, ())
    save(store, 3)
    assert names((filesystem, path)) == ["epoch-0001", "epoch-0003", "logs"]


def test_an_upload_that_arrives_short_is_not_committed(monkeypatch):
    filesystem, path = memory_filesystem()
    store = Checkpoints((filesystem, path))
    save(store, 1)
    monkeypatch.setattr(remote.shutil, "copyfileobj", lambda source, sink, length: sink.write(source.read()[:-1]))
    with pytest.raises(OSError, match=r"epoch-0002/state\.pt has \d+ bytes after its upload, expected \d+"):
        save(store, 2)
    monkeypatch.undo()
    assert store.latest().epoch == 1


def limited(bytes_per_file: int):
    """Let no file grow beyond a size: the kernel then refuses as it does on a full disk."""

    class Limit:
        def __enter__(self):
            self.before = resource.getrlimit(resource.RLIMIT_FSIZE)
            resource.setrlimit(resource.RLIMIT_FSIZE, (bytes_per_file, self.before[1]))

        def __exit__(self, *error):
            resource.setrlimit(resource.RLIMIT_FSIZE, self.before)

    return Limit()


@pytest.mark.parametrize("limit", [0, 100, 1000, 5_000, 100_000, 399_999])
def test_full_disk_leaves_the_last_checkpoint_and_says_how_much_is_needed(limit, tmp_path):
    store = Checkpoints(tmp_path)
    save(store, 1)
    files = {"state.pt": {"weight": torch.zeros(100_000)}}
    with limited(limit), pytest.raises(OSError, match=r"^cannot write .*epoch-0002: needs .* MB free$") as error:
        store.save(files, epoch=2, step=20, config_hash="abc")
    free_megabytes = shutil.disk_usage(tmp_path).free / 1e6
    assert "needs at least 0.4 MB, " in str(error.value)
    assert float(str(error.value).split()[-3]) == pytest.approx(free_megabytes, rel=0.2, abs=100)
    assert names(tmp_path) == ["epoch-0001"]
    assert store.latest().damaged == ()
    assert store.save(files, epoch=2, step=20, config_hash="abc") == "epoch-0002"


@pytest.mark.parametrize("failing", ["write_bytes", "mkdir", "rename"])
def test_full_disk_at_other_moments(failing, tmp_path, monkeypatch):
    store = Checkpoints(tmp_path)
    save(store, 1)

    def full(path, *args, **kwargs):
        raise OSError(errno.ENOSPC, "No space left on device", str(path))

    monkeypatch.setattr(Path, failing, full)
    with pytest.raises(OSError, match=r"^cannot write .*epoch-0002: needs at least 0\.0 MB, [\d.]+ MB free$"):
        save(store, 2)
    monkeypatch.undo()
    assert names(tmp_path) == ["epoch-0001"]


def test_full_disk_that_torch_hides(tmp_path, monkeypatch):
    """torch.save to a path says only ``unexpected pos``; then the little that is free tells."""
    store = Checkpoints(tmp_path)
    usage = shutil.disk_usage(tmp_path)

    def hidden(path):
        raise RuntimeError("[enforce fail at inline_container.cc:672] . unexpected pos 576 vs 534")

    with pytest.raises(RuntimeError, match="unexpected pos"):
        store.save({"x.pt": hidden}, epoch=1, step=1, config_hash="")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=4096))
    with pytest.raises(OSError, match=r"cannot write .*epoch-0001: needs at least 0\.0 MB, 0\.0 MB free"):
        store.save({"x.pt": hidden}, epoch=1, step=1, config_hash="")
