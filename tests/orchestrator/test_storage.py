from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import uuid
from pathlib import Path

import pytest

from orchestrator.storage import MANIFEST, Storage


@pytest.fixture(params=["disk", "memory"])
def storage(request, tmp_path):
    if request.param == "disk":
        return Storage(tmp_path / "out")
    return Storage(f"memory://{uuid.uuid4().hex}/out")


def test_text_comes_back_and_is_replaced_as_a_whole(storage):
    assert not storage.exists("a/result.json")
    storage.write_text("a/result.json", "first é")
    storage.write_text("a/result.json", "second")
    assert storage.read_text("a/result.json") == "second"
    assert storage.exists("a/result.json")
    assert storage.exists("a")
    assert storage.names("a") == ["result.json"]
    assert storage.names("missing") == []


def test_a_missing_file_is_named(storage, tmp_path):
    with pytest.raises(FileNotFoundError):
        storage.read_text("nothing.txt")
    with pytest.raises(FileNotFoundError, match=r"nothing\.txt"):
        storage.download("nothing.txt", tmp_path / "copy")


def test_a_folder_goes_up_and_down_again(storage, tmp_path):
    source = tmp_path / "source"
    (source / "sub").mkdir(parents=True)
    (source / "weights.pt").write_bytes(bytes(range(256)))
    (source / "sub" / "x.txt").write_text("x")
    (source / MANIFEST).write_text("{}")
    storage.upload(source, "checkpoints/step-7")
    assert storage.names("checkpoints") == ["step-7"]
    assert storage.names("checkpoints/step-7") == [MANIFEST, "sub", "weights.pt"]
    storage.download("checkpoints/step-7", tmp_path / "copy")
    assert (tmp_path / "copy" / "weights.pt").read_bytes() == bytes(range(256))
    assert (tmp_path / "copy" / "sub" / "x.txt").read_text() == "x"
    with pytest.raises(FileExistsError, match="step-7"):
        storage.upload(source, "checkpoints/step-7")


def test_local_gives_a_readable_path(storage, tmp_path):
    source = tmp_path / "weights.pt"
    source.write_bytes(b"weights")
    storage.upload(source, "student.pt")
    with storage.local("student.pt") as path:
        assert path.read_bytes() == b"weights"
        assert path.name == "student.pt"
    assert path.exists() == storage.is_local


def test_remove_takes_files_and_folders(storage):
    storage.write_text("a/x", "1")
    storage.write_text("y", "2")
    storage.remove("a")
    storage.remove("y")
    storage.remove("never there")
    assert storage.names() == []


def test_a_child_is_the_same_folder_by_another_way(storage):
    storage.child("teachers", "abc").write_text("result.json", "{}")
    assert storage.read_text("teachers/abc/result.json") == "{}"
    assert storage.child("teachers", "abc").name == "abc"
    assert Storage(storage.child("teachers").uri).read_text("abc/result.json") == "{}"


def test_pyarrow_reads_what_was_written(storage):
    storage.write_text("a/x", "1")
    system, path = storage.pyarrow("a/x")
    with system.open_input_stream(path) as stream:
        assert stream.read() == b"1"


def test_options_of_a_uri_stay_behind_the_path():
    storage = Storage("s3://bucket/results?region=eu-west-1")
    assert storage.child("teachers").uri == "s3://bucket/results/teachers?region=eu-west-1"
    assert storage.child("teachers").pyarrow()[1] == "bucket/results/teachers"
    assert storage.child("teachers").name == "teachers"
    assert not storage.is_local
    with pytest.raises(ValueError, match="not a folder of this machine"):
        _ = storage.path


def test_a_file_uri_is_a_path(tmp_path):
    storage = Storage(f"file://{tmp_path}/with%20space")
    assert storage.path == tmp_path / "with space"
    assert storage.uri == str(tmp_path / "with space")


def test_a_relative_path_is_fixed_at_once(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    storage = Storage("outputs")
    monkeypatch.chdir("/")
    assert storage.path == tmp_path / "outputs"


@pytest.mark.parametrize("uri", ["nosuchscheme://x/y", "s3://bad uri"])
def test_an_unknown_uri_is_refused_by_name(uri):
    with pytest.raises(ValueError, match=f"storage: cannot open {uri}"):
        Storage(uri)


def test_the_manifest_is_written_last(tmp_path, monkeypatch):
    storage = Storage(f"memory://{uuid.uuid4().hex}/out")
    source = tmp_path / "source"
    source.mkdir()
    for name in (MANIFEST, "a.pt", "z.pt"):
        (source / name).write_text(name)
    written = []
    write = Storage._write
    monkeypatch.setattr(
        Storage, "_write", lambda self, file, path: (written.append(file.name), write(self, file, path))
    )
    storage.upload(source, "step-1")
    assert written == ["a.pt", "z.pt", MANIFEST]


def test_a_killed_writer_leaves_the_old_content(tmp_path):
    """Killed at random moments, the file is always one of the two texts, whole."""
    script = (
        "import sys; from orchestrator.storage import Storage; s = Storage(sys.argv[1]);\n"
        "s.write_text('x', 'a' * 200000); print('ready', flush=True)\n"
        "while True:\n s.write_text('x', 'b' * 200000); s.write_text('x', 'a' * 200000)"
    )
    root = Path(__file__).parents[2]
    for delay in (0.0, 0.003, 0.011, 0.02):
        process = subprocess.Popen(
            [sys.executable, "-c", script, str(tmp_path)],
            stdout=subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": str(root)},
        )
        assert process.stdout is not None
        process.stdout.readline()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(delay)
        process.kill()
        process.wait()
        text = Storage(tmp_path).read_text("x")
        assert text in ("a" * 200000, "b" * 200000)
        assert Storage(tmp_path).names() == ["x"]
