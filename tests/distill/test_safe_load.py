"""Files that others wrote: none runs code, none fills the memory, each error names its file."""

import io
import pickle
import struct
import zipfile

import pytest
import torch
from torch import nn

from distill.safe_load import safe_load


def saved(value) -> bytes:
    buffer = io.BytesIO()
    torch.save(value, buffer)
    return buffer.getvalue()


def rewritten(archive: bytes, *, pickle_bytes=None, replace=None, compression=zipfile.ZIP_STORED) -> bytes:
    """The same members with another pickle, other contents, or another compression."""
    source, target = zipfile.ZipFile(io.BytesIO(archive)), io.BytesIO()
    with zipfile.ZipFile(target, "w", compression) as out:
        for member in source.infolist():
            content = source.read(member)
            if member.filename.endswith("/data.pkl") and pickle_bytes is not None:
                content = pickle_bytes
            out.writestr(member.filename, (replace or {}).get(member.filename.partition("/")[2], content))
    return target.getvalue()


def test_reads_what_torch_saved(tmp_path):
    state = {
        "net": nn.BatchNorm2d(3).state_dict(),
        "half": torch.arange(6, dtype=torch.bfloat16).reshape(2, 3).t(),
        "numbers": [1, 2.5, None, True, ("text", {"deep": torch.tensor(7)})],
        "parameter": nn.Parameter(torch.ones(2)),
        "channels_last": torch.randn(2, 3, 4, 5).to(memory_format=torch.channels_last),
    }
    (tmp_path / "x.pt").write_bytes(saved(state))
    loaded = safe_load(tmp_path / "x.pt")
    assert list(loaded) == list(state)
    assert loaded["numbers"] == state["numbers"]
    for key in ("half", "parameter", "channels_last"):
        assert torch.equal(loaded[key], state[key])
    assert all(torch.equal(loaded["net"][key], value) for key, value in state["net"].items())


class Runs:
    """Pickles as a call of ``os.mkdir``: loading it without care leaves a canary folder."""

    def __init__(self, canary):
        self.canary = str(canary)

    def __reduce__(self):
        import os

        return os.mkdir, (self.canary,)


def hostile_pickles(canary) -> dict[str, tuple[bytes, str]]:
    name = str(canary).encode()
    return {
        "reduce": (pickle.dumps({"w": Runs(canary)}, protocol=2), "posix.mkdir"),
        "protocol 4": (pickle.dumps({"w": Runs(canary)}, protocol=4), "STACK_GLOBAL"),
        "inst": (b"(S'" + name + b"'\niposix\nmkdir\n.", "INST"),
        "obj": (b"(cposix\nmkdir\nS'" + name + b"'\no.", "posix.mkdir"),
        "builtins": (b"cbuiltins\neval\n(S'1'\ntR.", "builtins.eval"),
        "torch.load": (b"ctorch\nload\n(S'x'\ntR.", "torch.load"),
        "huge bytearray": (b"\x80\x02cbuiltins\nbytearray\n(\x8a\x06\0\0\0\0\0\x10tR.", "builtins.bytearray"),
        "numpy scalar": (pickle.dumps({"best": __import__("numpy").float64(1.0)}, protocol=2), "numpy"),
        "sparse": (b"ctorch._utils\n_rebuild_sparse_tensor\n.", "_rebuild_sparse_tensor"),
        "extension": (b"\x80\x02\x82\x01.", "EXT1"),
        "cut": (b"\x80\x02}q\x00X\x09\x00\x00\x00w", "expected 9 bytes .* only 1 remain"),
        "not a pickle": (b"\xff\xfe\xfd", "opcode"),
    }


@pytest.mark.parametrize("kind", list(hostile_pickles("x")))
def test_hostile_pickles_do_nothing_and_are_named(kind, tmp_path):
    content, reason = hostile_pickles(tmp_path / "canary")[kind]
    path = tmp_path / "hostile.pt"
    path.write_bytes(rewritten(saved({"w": torch.ones(2)}), pickle_bytes=content))
    with pytest.raises(ValueError, match=reason) as error:
        safe_load(path)
    assert str(path) in str(error.value)
    assert not (tmp_path / "canary").exists()


def test_the_canary_would_sing(tmp_path):
    pickle.loads(hostile_pickles(tmp_path / "canary")["reduce"][0])
    assert (tmp_path / "canary").exists()


def test_deflated_storage_is_refused(tmp_path):
    path = tmp_path / "bomb.pt"
    path.write_bytes(rewritten(saved({"w": torch.zeros(250_000)}), compression=zipfile.ZIP_DEFLATED))
    assert path.stat().st_size < 10_000
    with pytest.raises(ValueError, match=r"bomb\.pt: entries must be stored plainly, but .* is compressed"):
        safe_load(path)


def test_entries_that_share_their_bytes_are_refused(tmp_path):
    path = tmp_path / "overlap.pt"
    content = bytearray(rewritten(saved({"w": torch.zeros(1000), "v": torch.ones(1000)})))
    with zipfile.ZipFile(io.BytesIO(bytes(content))) as archive:
        offsets = {member.filename: member.header_offset for member in archive.infolist()}
    # let the directory entry of the second storage, and of everything small, point at the first storage
    start = content.index(b"PK\x01\x02")
    while (entry := content.find(b"PK\x01\x02", start)) >= 0:
        size = struct.pack("<I", 10**8)
        content[entry + 20 : entry + 28] = size + size
        content[entry + 42 : entry + 46] = struct.pack("<I", offsets["archive/data/0"])
        start = entry + 4
    path.write_bytes(bytes(content))
    with pytest.raises(ValueError, match=r"overlap\.pt: entries claim \d+ bytes together, but the file has \d+"):
        safe_load(path)


def test_expanded_tensor_is_refused(tmp_path):
    path = tmp_path / "expanded.pt"
    path.write_bytes(saved({"layers": [{"w": torch.ones(1).expand(10**6, 10**6)}]}))
    assert path.stat().st_size < 3_000
    with pytest.raises(
        ValueError,
        match=r"expanded\.pt: tensors must be stored whole, but layers\[0\]\.w of shape \[1000000, 1000000\]",
    ):
        safe_load(path)


def test_storage_that_claims_more_than_the_record_is_refused(tmp_path):
    path = tmp_path / "claim.pt"
    archive = saved({"w": torch.arange(100.0)})
    content = zipfile.ZipFile(io.BytesIO(archive)).read("archive/data.pkl")
    assert content.count(b"Kd") == 2  # the storage's length, and the tensor's
    path.write_bytes(rewritten(archive, pickle_bytes=content.replace(b"Kd", b"M" + struct.pack("<H", 50_000))))
    with pytest.raises(ValueError, match=r"claim\.pt cannot be read by PyTorch: "):
        safe_load(path)


def test_shared_containers_are_walked_once(tmp_path):
    value: list = [torch.ones(1)]
    for _ in range(60):
        value = [value, value]  # 2 to the power of 60 paths lead to the tensor
    (tmp_path / "laughs.pt").write_bytes(saved(value))
    assert len(safe_load(tmp_path / "laughs.pt")) == 2


def test_an_endless_pickle_is_refused(tmp_path):
    path = tmp_path / "long.pt"
    path.write_bytes(rewritten(saved({"w": torch.ones(2)}), pickle_bytes=b"\x80\x02" + b"N0" * 9_000_000 + b"N."))
    with pytest.raises(ValueError, match=r"long\.pt: what describes the tensors must be below 16777216 bytes"):
        safe_load(path)


def legacy() -> bytes:
    buffer = io.BytesIO()
    torch.save({"w": torch.ones(2)}, buffer, _use_new_zipfile_serialization=False)
    return buffer.getvalue()


def encrypted() -> bytes:
    content = bytearray(saved({"w": torch.ones(2)}))
    position = content.index(b"PK\x01\x02")
    content[position + 8] |= 1
    return bytes(content)


@pytest.mark.parametrize(
    "content",
    [b"", b"not a checkpoint", b"\x80\x02}.", legacy(), saved({"w": torch.ones(200)})[:-300], encrypted()],
    ids=["empty", "text", "pickle", "legacy", "cut", "encrypted"],
)
def test_what_is_no_plain_zip_is_refused(content, tmp_path):
    path = tmp_path / "odd.pth"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"odd\.pth must be a file in PyTorch's zip format .*torch\.save\(model"):
        safe_load(path)


def test_torchscript_is_refused(tmp_path):
    content = saved({"w": torch.ones(2)})
    target = io.BytesIO(content)
    with zipfile.ZipFile(target, "a") as archive:
        archive.writestr("archive/constants.pkl", b"\x80\x02).")
    (tmp_path / "script.pt").write_bytes(target.getvalue())
    with pytest.raises(ValueError, match=r"script\.pt must hold exactly one pickled object, and not a TorchScript"):
        safe_load(tmp_path / "script.pt")


def test_missing_file_names_its_neighbour(tmp_path):
    (tmp_path / "teacher.pt").touch()
    with pytest.raises(ValueError, match=r"taecher\.pt does not exist; did you mean .*/teacher\.pt\?"):
        safe_load(tmp_path / "taecher.pt")
    with pytest.raises(ValueError, match=r"nowhere/x\.pt does not exist$"):
        safe_load(tmp_path / "nowhere" / "x.pt")
    with pytest.raises(ValueError, match="must be a file, found a folder"):
        safe_load(tmp_path)


def test_safetensors(tmp_path):
    safetensors = pytest.importorskip("safetensors.torch", reason="the optional package safetensors is not installed")
    safetensors.save_file({"w": torch.arange(4.0)}, tmp_path / "x.safetensors")
    assert torch.equal(safe_load(tmp_path / "x.safetensors")["w"], torch.arange(4.0))
    content = (tmp_path / "x.safetensors").read_bytes()
    (tmp_path / "cut.safetensors").write_bytes(content[:-3])
    with pytest.raises(ValueError, match=r"cut\.safetensors cannot be read by safetensors: "):
        safe_load(tmp_path / "cut.safetensors")
