import errno
import logging
import multiprocessing
import os
import shutil
import signal
import time

import pytest

from distill.data.roots import ListedFile
from distill.data.roots.copies import Copies, copies_folder

CONTENT = {"a": b"first", "sub/b": b"second one", "sub/c": b""}
PROCESSES = multiprocessing.get_context("fork")


class Remote:
    """A remote root of some bytes: counts in a file which of them were read, and by how many processes."""

    def __init__(self, content, log, *, time_ns=10**18, seconds=0.0):
        self.content = dict(content)
        self.log = log
        self.time_ns = time_ns
        self.seconds = seconds

    def files(self):
        return [ListedFile(name, len(data), self.time_ns) for name, data in self.content.items()]

    def chunks(self, name):
        with self.log.open("a") as log:
            log.write(f"{name}\n")
        time.sleep(self.seconds)
        yield self.content[name][:3]
        yield self.content[name][3:]

    def read(self):
        return sorted(self.log.read_text().split()) if self.log.exists() else []

    def copies(self, folder):
        return Copies(folder, location=lambda name: f"s3://bucket/{name}", chunks=self.chunks)

    def provide(self, folder):
        return self.copies(folder).provide(self.files())


@pytest.fixture
def remote(tmp_path):
    return Remote(CONTENT, tmp_path / "log")


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "copies"


def content(copy):
    return {str(path.relative_to(copy)): path.read_bytes() for path in copy.rglob("*") if path.is_file()}


def in_process(work):
    """Run work in a process of its own, so that it holds no copy afterwards."""
    process = PROCESSES.Process(target=work)
    process.start()
    process.join(60)
    assert process.exitcode == 0


def test_a_copy_holds_the_files_and_is_made_once(remote, folder):
    copy = remote.provide(folder)
    assert content(copy) == CONTENT
    assert remote.provide(folder) == copy
    assert remote.read() == sorted(CONTENT)
    assert not list(folder.glob(".part-*"))


def test_the_order_of_the_listing_makes_no_difference(remote, folder):
    copies = remote.copies(folder)
    assert copies.provide(remote.files()) == copies.provide(remote.files()[::-1])


@pytest.mark.parametrize("found", [b"firs", b"first and more"])
def test_a_file_of_another_size_than_listed_is_refused(remote, folder, found):
    files = remote.files()
    remote.content["a"] = found
    with pytest.raises(ValueError, match="s3://bucket/a must have the 5 bytes that its listing says"):
        remote.copies(folder).provide(files)
    assert not [path for path in folder.rglob("*") if path.name in ("a", ".part")]
    remote.content["a"] = CONTENT["a"]
    assert content(remote.copies(folder).provide(files)) == CONTENT


def test_a_file_without_end_does_not_fill_the_disk(folder):
    given = []

    def endless(name):
        while len(given) < 1000:
            given.append(name)
            yield b"more"

    with pytest.raises(ValueError, match="found more"):
        Copies(folder, location=str, chunks=endless).provide([ListedFile("a", 9)])
    assert len(given) == 3


def test_a_damaged_copy_is_repaired_and_said(remote, folder, caplog):
    copy = remote.provide(folder)
    (copy / "a").write_bytes(b"fir")
    (copy / "sub" / "b").unlink()
    remote.log.unlink()
    with caplog.at_level(logging.WARNING):
        assert remote.provide(folder) == copy
    assert content(copy) == CONTENT
    assert remote.read() == ["a", "sub/b"]
    assert "1 files in" in caplog.text


def test_processes_that_ask_at_once_copy_once(remote, folder):
    remote.seconds = 0.2
    start = PROCESSES.Barrier(3)

    def work():
        start.wait()
        assert content(remote.provide(folder)) == CONTENT

    processes = [PROCESSES.Process(target=work) for _ in range(3)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
        assert process.exitcode == 0
    assert remote.read() == sorted(CONTENT)


def test_a_killed_copy_goes_on_where_it_was(tmp_path, folder):
    slow = {"a": b"first", "b": bytes(10)}
    remote = Remote(slow, tmp_path / "log")
    files = remote.files()

    def work():
        chunks = remote.chunks

        def stuck(name):
            yield from chunks(name)
            if name == "b":
                time.sleep(600)

        remote.chunks = stuck
        remote.copies(folder).provide(files)

    process = PROCESSES.Process(target=work)
    process.start()
    deadline = time.monotonic() + 60
    while not list(folder.glob("*/a")) or not any(part.stat().st_size == 0 for part in folder.glob(".part-*")):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    assert list(folder.glob(".part-*"))
    remote.log.unlink()
    assert content(remote.provide(folder)) == slow
    assert remote.read() == ["b"]
    assert not list(folder.glob(".part-*"))


def test_changed_files_become_a_new_copy_that_shares_the_others(remote, folder):
    old = remote.provide(folder)
    files = [file if file.name != "a" else ListedFile("a", 5, 2 * 10**18) for file in remote.files()]
    remote.content["a"] = b"other"
    remote.log.unlink()
    new = remote.copies(folder).provide(files)
    assert content(new) == {**CONTENT, "a": b"other"}
    assert remote.read() == ["a"]
    assert (new / "sub" / "b").stat().st_ino == (old / "sub" / "b").stat().st_ino
    assert content(old) == CONTENT  # this process reads it still


def test_without_times_nothing_is_taken_for_unchanged(remote, folder):
    remote.time_ns = None
    remote.provide(folder)
    remote.content = {**CONTENT, "a": b"longer than before"}
    remote.log.unlink()
    assert content(remote.provide(folder)) == remote.content
    assert remote.read() == sorted(CONTENT)


def test_an_old_copy_is_removed_when_no_living_process_reads_it(tmp_path, folder):
    first, second, third = (Remote({"a": b"x" * size}, tmp_path / "log") for size in (1, 2, 3))
    in_process(lambda: first.provide(folder))
    held = second.provide(folder)
    assert [path for path in folder.iterdir() if path.is_dir()] == [held]
    in_process(lambda: third.provide(folder))
    copies = [path for path in folder.iterdir() if path.is_dir()]
    assert len(copies) == 2
    assert content(held) == {"a": b"xx"}


def test_another_data_set_of_the_same_root_is_left_alone(tmp_path, folder):
    fashion, cifar = Remote({"f": b"f"}, tmp_path / "log"), Remote({"c": b"c"}, tmp_path / "log")
    in_process(lambda: fashion.provide(folder))
    in_process(lambda: cifar.provide(folder))
    fashion.provide(folder)
    cifar.provide(folder)
    assert fashion.read() == ["c", "f"]


def test_a_small_disk_is_refused_before_anything_is_copied(remote, folder, monkeypatch):
    folder.mkdir()
    usage = shutil.disk_usage(folder)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=14))
    with pytest.raises(ValueError, match=r"must have 15 B free for the files of s3://bucket/, found 14 B; .*CACHE"):
        remote.provide(folder)
    assert remote.read() == []


def test_a_disk_that_fills_up_meanwhile_is_named_and_leaves_what_is_whole(remote, folder, monkeypatch):
    sync = os.fsync

    def full(descriptor):
        if os.fstat(descriptor).st_size == 10:
            raise OSError(errno.ENOSPC, "No space left on device")
        sync(descriptor)

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(ValueError, match="must have 10 B free for the files of s3://bucket/"):
        remote.provide(folder)
    monkeypatch.undo()
    remote.log.unlink()
    assert content(remote.provide(folder)) == CONTENT
    assert "a" not in remote.read()


def test_a_cache_that_cannot_be_written_is_named(remote, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(
        ValueError, match=r"cannot copy s3://bucket/ to .*Not a directory.*DISTILLERY_CACHE names another"
    ):
        remote.provide(tmp_path / "file" / "copies")


def test_each_uri_has_a_folder_of_its_own_below_the_cache(cache, monkeypatch):
    folder = copies_folder("s3://bucket/fashion?region=x")
    assert folder.parent == cache / "data"
    assert folder.name.startswith("fashion-")
    assert copies_folder("s3://bucket/fashion?region=x") == folder
    assert copies_folder("s3://other/fashion?region=x") != folder
    assert copies_folder("s3://bucket/fashion/") == copies_folder("s3://bucket/fashion")
    monkeypatch.setenv("DISTILLERY_CACHE", "~/somewhere")
    assert "~" not in str(copies_folder("memory://x"))
    monkeypatch.delenv("DISTILLERY_CACHE")
    assert copies_folder("memory://x").parent.parent.parts[-2:] == (".cache", "distillery")
