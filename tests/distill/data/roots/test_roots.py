"""What every root promises, and what differs behind a URI."""

import gzip
import logging

import fsspec
import pytest

from distill.data.roots import LocalRoot, RemoteRoot

FILES = {"a.txt": b"a", "train/cat/1.png": b"one", "train/cat/deep/2.png": b"second", "packed.gz": gzip.compress(b"x")}


@pytest.fixture
def memory():
    """A folder of fsspec's file system in memory."""
    system = fsspec.filesystem("memory")
    yield "memory://roots/data"
    system.rm("/roots", recursive=True)


@pytest.fixture(params=["path", "local", "memory"])
def root(request, tmp_path):
    if request.param == "memory":
        uri = request.getfixturevalue("memory")
        for name, content in FILES.items():
            fsspec.filesystem("memory").pipe_file(f"/roots/data/{name}", content)
        return RemoteRoot(uri)
    folder = tmp_path / "data"
    for name, content in FILES.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    return LocalRoot(folder) if request.param == "path" else RemoteRoot(f"local://{folder}/")


def test_it_lists_names_and_sizes(root):
    assert {(file.name, file.size) for file in root.files()} == {(name, len(FILES[name])) for name in FILES}
    assert {file.name for file in root.files("train/cat")} == {"train/cat/1.png", "train/cat/deep/2.png"}
    assert root.folders() == ["train"]
    assert root.folders("train/cat") == ["deep"]
    assert (root.folders("nothing"), root.files("nothing")) == ([], [])


def test_it_finds_the_first_of_some_names(root):
    assert root.find("b.txt", "train/cat/1.png", "a.txt")[:2] == ("train/cat/1.png", 3)
    assert root.find("b.txt", "train") is None


def test_it_opens_and_fetches_files_as_they_are(root):
    files = root.files()
    folder = root.fetch(files)
    for name, content in FILES.items():
        with root.open(name) as file:
            assert file.read() == content
        assert (folder / name).read_bytes() == content
    assert root.fetch(files) == folder


def test_it_calls_itself_by_its_location(root):
    assert root.location().endswith("/data")
    assert root.location("train/x") == f"{root.location()}/train/x"


def test_only_a_path_takes_downloads(tmp_path):
    assert LocalRoot(tmp_path).downloads_to == tmp_path
    assert RemoteRoot(f"local://{tmp_path}").downloads_to is None


def test_a_link_that_leads_nowhere_spoils_no_listing(tmp_path):
    (tmp_path / ".#notes").symlink_to(tmp_path / "nowhere")
    assert [file.name for file in LocalRoot(tmp_path).files()] == [".#notes"]
    assert LocalRoot(tmp_path).find(".#notes") is None


def test_only_what_was_asked_for_is_copied_and_the_cache_says_where(tmp_path, cache):
    for name in ("a", "b"):
        (tmp_path / name).write_text(name)
    root = RemoteRoot(f"local://{tmp_path}")
    folder = root.fetch([root.find("a")])
    assert cache in folder.parents
    assert [path.name for path in folder.iterdir()] == ["a"]


def test_a_folder_that_is_not_there_is_refused(tmp_path):
    with pytest.raises(ValueError, match=f"root must be an existing folder, found none at local://{tmp_path}/x"):
        RemoteRoot(f"local://{tmp_path}/x")


def test_a_store_that_does_not_answer_is_one_line_without_secrets():
    uri = "s3://KEY:hunter2@bucket/x?region=eu-west-1&scheme=http&endpoint_override=127.0.0.1:9"
    with pytest.raises(ValueError, match="can reach and read, found s3://bucket/x: ") as error:
        RemoteRoot(uri)
    assert "\n" not in str(error.value)
    assert "hunter2" not in str(error.value)


def test_a_name_that_leads_out_of_the_root_is_refused(memory, cache):
    system = fsspec.filesystem("memory")
    system.pipe_file("/roots/data/a", b"a")
    system.store["/roots/data/../../evil"] = system.store["/roots/data/a"]
    try:
        with pytest.raises(ValueError, match=r"must not lead out of it, found .*evil"):
            RemoteRoot(memory).files()
    finally:
        del system.store["/roots/data/../../evil"]
    assert list(cache.iterdir()) == []


def test_a_file_that_vanishes_after_the_listing_is_named(memory):
    system = fsspec.filesystem("memory")
    system.pipe({"/roots/data/a": b"a", "/roots/data/b": b"b"})
    root = RemoteRoot(memory)
    files = root.files()
    system.rm("/roots/data/b")
    with pytest.raises(ValueError, match="found memory://roots/data/b: "):
        root.fetch(files)


def test_copying_is_said(memory, caplog):
    fsspec.filesystem("memory").pipe_file("/roots/data/a", bytes(1500))
    root = RemoteRoot(memory)
    with caplog.at_level(logging.INFO):
        root.fetch(root.files())
        root.fetch(root.files())
    assert [record.message.partition(" to ")[0] for record in caplog.records] == [
        "copying 1 files (1.5 kB) from memory://roots/data"
    ]
