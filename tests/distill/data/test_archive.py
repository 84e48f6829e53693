import io
import tarfile
import threading
import zipfile

import pytest

from distill.data import archive
from distill.data.archive import unpacked
from distill.data.root import resolve_root
from distill.data.roots import LocalRoot, RemoteRoot

FILES = {"set/images/a.png": b"image", "set/masks/a.png": b"mask" * 1000, "set/empty.txt": b""}
BESIDE = {"README.md": b"x", "LICENSE": b"x", "__MACOSX/._a": b"x"}


def write_tar(path, files, mode="w:xz", members=()):
    with tarfile.open(path, mode) as tar:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
        for member in members:
            tar.addfile(member)


def write_zip(path, files):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(name, content)


def contents(root):
    return {file.name: root.open(file.name).read() for file in root.files()}


@pytest.fixture
def open_archive(tmp_path):
    return lambda name="set.tar.xz": unpacked(LocalRoot(tmp_path), name)


@pytest.mark.parametrize("name", ["set.tar", "set.tar.gz", "set.tgz", "set.tar.bz2", "set.tar.xz", "set.zip"])
def test_files_are_those_of_the_archive_and_a_single_folder_is_the_root(tmp_path, cache, open_archive, name):
    files = {**FILES, **BESIDE} if "z" in name else FILES
    if name.endswith(".zip"):
        write_zip(tmp_path / name, files)
    else:
        write_tar(tmp_path / name, files, {"tar": "w", "tgz": "w:gz"}.get(name[4:], f"w:{name[8:]}"))
    root = open_archive(name)
    assert contents(root) == {name.removeprefix("set/"): content for name, content in FILES.items()}
    assert root.path.is_relative_to(cache / "archives")


def test_several_folders_stay_side_by_side(tmp_path, open_archive):
    files = {"images/a.png": b"1", "masks/a.png": b"2"}
    write_tar(tmp_path / "set.tar.xz", files)
    assert contents(open_archive()) == files
    files = {"images/a.png": b"1", "annotations.json": b"2"}
    write_tar(tmp_path / "set.tar.xz", files)
    assert contents(open_archive()) == files


def test_it_is_unpacked_once_and_anew_when_it_changes(tmp_path, open_archive, monkeypatch):
    path = tmp_path / "set.tar.xz"
    write_tar(path, FILES)
    first = open_archive()
    with monkeypatch.context() as patch:
        patch.setattr(archive, "_unpack", lambda *_: pytest.fail("unpacked again"))
        assert open_archive().path == first.path
    write_tar(path, {"set/b.txt": b"changed"})
    assert contents(open_archive()) == {"b.txt": b"changed"}
    assert set(contents(first)) == {"images/a.png", "masks/a.png", "empty.txt"}


def test_two_at_once_unpack_once(tmp_path, open_archive, monkeypatch):
    write_tar(tmp_path / "set.tar.xz", FILES)
    calls, plain = [], archive._unpack

    def slow(*arguments):
        calls.append(1)
        threading.Event().wait(0.3)
        plain(*arguments)

    monkeypatch.setattr(archive, "_unpack", slow)
    found = []
    threads = [threading.Thread(target=lambda: found.append(open_archive())) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(calls) == 1
    assert [len(root.files()) for root in found] == [3, 3, 3]


def test_by_uri_it_is_copied_once_and_then_left_alone(tmp_path, cache, monkeypatch):
    write_tar(tmp_path / "set.tar.xz", FILES)
    remote = resolve_root(f"local://{tmp_path}")
    root = unpacked(remote, "set.tar.xz")
    assert len(root.files()) == 3
    assert root.path.is_relative_to(cache / "archives")
    monkeypatch.setattr(RemoteRoot, "fetch", lambda *_: pytest.fail("copied again"))
    assert unpacked(remote, "set.tar.xz").path == root.path


def link(name, kind, target):
    member = tarfile.TarInfo(name)
    member.type = kind
    member.linkname = target
    return member


@pytest.mark.parametrize(
    ("files", "members", "message"),
    [
        ({"../out.txt": b"x"}, [], r"names that do not lead out of it, found '../out.txt'"),
        ({"set/../../out.txt": b"x"}, [], "names that do not lead out"),
        ({"/tmp/out.txt": b"x"}, [], "names that do not lead out of it, found '/tmp/out.txt'"),
        ({"a\\..\\b": b"x"}, [], "names that do not lead out"),
        ({"a": b"x"}, [link("b", tarfile.SYMTYPE, "/etc/passwd")], "files and folders alone, found a link .*'b'"),
        ({"a": b"x"}, [link("b", tarfile.LNKTYPE, "a")], "files and folders alone"),
        ({"a": b"x"}, [link("b", tarfile.FIFOTYPE, "")], "files and folders alone"),
        ({"a": b"x"}, [link("b", tarfile.CHRTYPE, "")], "files and folders alone"),
        ({"a": b"x", "./a": b"y"}, [], "each file once"),
    ],
)
def test_what_leads_out_or_is_no_file_is_refused(tmp_path, cache, open_archive, files, members, message):
    write_tar(tmp_path / "set.tar.xz", files, members=members)
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(ValueError, match=f"archive {tmp_path}/set.tar.xz must hold {message}"):
        open_archive()
    assert sorted(tmp_path.rglob("*")) == before
    assert [path.suffix for path in (cache / "archives").iterdir()] == [".lock"]


def test_a_link_in_a_zip_is_refused(tmp_path, open_archive):
    member = zipfile.ZipInfo("b")
    member.external_attr = 0o120777 << 16
    with zipfile.ZipFile(tmp_path / "set.zip", "w") as packed:
        packed.writestr(member, "/etc/passwd")
    with pytest.raises(ValueError, match="files and folders alone, found a link or a device, 'b'"):
        open_archive("set.zip")


def test_an_archive_without_files_is_refused(tmp_path, open_archive):
    write_tar(tmp_path / "set.tar.xz", {})
    with pytest.raises(ValueError, match=r"set.tar.xz must hold files, found none"):
        open_archive()


def test_more_than_an_honest_archive_holds_is_refused(tmp_path, cache, open_archive, monkeypatch):
    monkeypatch.setattr(archive, "FREE_BYTES", 10**6)
    write_tar(tmp_path / "set.tar.xz", {"zeros": bytes(10**7)})
    assert (tmp_path / "set.tar.xz").stat().st_size < 90_000
    with pytest.raises(ValueError, match="must unpack to at most 100 times its size and 100 MB, found more"):
        open_archive()
    monkeypatch.setattr(archive, "FREE_BYTES", 10**8)
    monkeypatch.setattr(archive, "MAX_FILES", 2)
    write_tar(tmp_path / "set.tar.xz", FILES)
    with pytest.raises(ValueError, match="must hold at most 2 files, found more"):
        open_archive()
    assert not [path for path in (cache / "archives").iterdir() if path.is_dir()]


DAMAGES = {
    "set.tar.xz": lambda path: path.read_bytes()[:-100],
    "set.tar.gz": lambda path: b"no archive at all",
    "set.tar": lambda path: path.read_bytes()[:3000],
    "between.tar": lambda path: path.read_bytes()[: 512 * 2 + 512 * 9],
    "end.tar.xz": lambda path: path.read_bytes()[:-10],
    "set.zip": lambda path: path.read_bytes()[:-30],
    "set.tar.bz2": lambda path: path.read_bytes()[:-30],
}


@pytest.mark.parametrize("name", sorted(DAMAGES))
def test_a_damaged_archive_is_named_and_nothing_is_left(tmp_path, cache, open_archive, name):
    path = tmp_path / name
    if name.endswith(".zip"):
        write_zip(path, FILES)
    else:
        write_tar(path, FILES, "w" if name.endswith(".tar") else f"w:{name.rpartition('.')[2]}")
    path.write_bytes(DAMAGES[name](path))
    with pytest.raises(ValueError, match=f"archive {path} cannot be read: [^\n]+[^:\n]$"):
        open_archive(name)
    assert not [path for path in (cache / "archives").iterdir() if path.is_dir()]


def test_what_a_killed_process_left_is_removed(tmp_path, cache, open_archive):
    write_tar(tmp_path / "set.tar.xz", FILES)
    first = open_archive().path.parent
    leftover = first.with_name(f".{first.name}-abc")
    first.rename(leftover)
    assert open_archive().path.parent == first
    assert not leftover.exists()


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("none.tar.xz", "archive must be a file in root, found no 'none.tar.xz' in"),
        ("set.rar", "archive must be a tar or a zip, named .tar, .*found 'set.rar'"),
    ],
)
def test_a_wrong_name_is_refused(open_archive, name, message):
    with pytest.raises(ValueError, match=message):
        open_archive(name)


def test_a_cache_that_cannot_be_written_is_named(tmp_path, open_archive, monkeypatch):
    write_tar(tmp_path / "set.tar.xz", FILES)
    (tmp_path / "file").write_text("x")
    monkeypatch.setenv("DISTILLERY_CACHE", str(tmp_path / "file"))
    with pytest.raises(ValueError, match=r"cannot unpack .*set.tar.xz to .*DISTILLERY_CACHE names another folder"):
        open_archive()
