"""Damage is found, named and passed over: every bit counts."""

import contextlib
import errno
import logging
import random
import shutil
from collections import Counter
from pathlib import Path

import pytest
from checkpoint_samples import memory_filesystem, names, save

from distill.checkpoint import CheckpointError, Checkpoints
from distill.checkpoint_manifest import Manifest
from distill.folders import LocalFolder


def flipped(content: bytes, generator: random.Random) -> bytes:
    position = generator.randrange(8 * len(content))
    changed = bytearray(content)
    changed[position // 8] ^= 1 << (position % 8)
    return bytes(changed)


def cut(content: bytes, generator: random.Random) -> bytes:
    return content[: generator.randrange(len(content))]


@pytest.mark.parametrize(("damage", "count"), [(flipped, 200), (cut, 60)])
def test_every_damage_is_found_and_named_and_the_previous_used(damage, count, tmp_path, caplog):
    generator = random.Random(0)
    store = Checkpoints(tmp_path)
    save(store, 1)
    save(store, 2)
    files = [tmp_path / "epoch-0002" / name for name in ("state.pt", "rows.bin", "manifest.json")]
    sizes = [file.stat().st_size for file in files]
    hit = Counter()
    for _ in range(count):
        (file,) = generator.choices(files, sizes)  # uniform over the bytes of all files
        content = file.read_bytes()
        file.write_bytes(damage(content, generator))
        caplog.clear()
        with caplog.at_level(logging.WARNING):
            found = Checkpoints(tmp_path).latest("abc")
        file.write_bytes(content)
        assert found.epoch == 1
        assert found.load("state.pt")["epoch"] == 1
        assert len(found.damaged) == 1
        assert found.damaged[0].startswith(f"{tmp_path / 'epoch-0002'}: {file.name} ")
        assert f"checkpoint {tmp_path / 'epoch-0002'} is damaged: {file.name} " in caplog.text
        hit[file.name] += 1
    assert set(hit) == {"state.pt", "rows.bin", "manifest.json"}
    assert Checkpoints(tmp_path).latest().damaged == ()


def test_every_bit_of_a_manifest_counts(tmp_path):
    save(Checkpoints(tmp_path), 1)
    content = (tmp_path / "epoch-0001" / "manifest.json").read_bytes()
    assert Manifest.decode(content).epoch == 1
    undetected = []
    for position in range(8 * len(content)):
        changed = bytearray(content)
        changed[position // 8] ^= 1 << (position % 8)
        with contextlib.suppress(CheckpointError):
            Manifest.decode(bytes(changed))
            undetected.append(position)
    assert undetected == []


def test_damage_on_a_file_system_behind_pyarrow():
    filesystem, path = memory_filesystem()
    store = Checkpoints((filesystem, path))
    save(store, 1)
    save(store, 2)
    with filesystem.open_output_stream(f"{path}/epoch-0002/rows.bin") as file:
        file.write(b"\2" * 999 + b"\3")
    found = store.latest()
    assert found.epoch == 1
    assert found.damaged == (f"py::fsspec+memory:{path}/epoch-0002: rows.bin does not match its SHA-256",)


def test_missing_files_and_renamed_checkpoints_are_damage(tmp_path):
    store = Checkpoints(tmp_path, keep=4)
    for epoch in (1, 2, 3):
        save(store, epoch)
    (tmp_path / "epoch-0003" / "rows.bin").unlink()
    (tmp_path / "epoch-0002" / "manifest.json").unlink()
    shutil.copytree(tmp_path / "epoch-0001", tmp_path / "epoch-0009")
    found = store.latest()
    assert found.epoch == 1
    assert [reason.partition("epoch-")[2] for reason in found.damaged] == [
        "0009: its manifest is that of epoch 1",
        "0003: rows.bin cannot be read (No such file or directory)",
        "0002: manifest.json cannot be read (No such file or directory)",
    ]


def test_a_manifest_of_another_format_is_not_read(tmp_path):
    store = Checkpoints(tmp_path)
    save(store, 1)
    file = tmp_path / "epoch-0001" / "manifest.json"
    file.write_bytes(file.read_bytes().replace(b'"format": 1', b'"format": 2'))
    with pytest.raises(CheckpointError, match=r"manifest\.json is damaged \(format must be 1, found 2\)"):
        store.latest()


def test_all_damaged_is_an_error_that_names_them_and_says_what_to_do(place_of_two):
    with pytest.raises(
        CheckpointError,
        match=r"all checkpoints are damaged: .*epoch-0002: rows\.bin has 3 bytes, the manifest says 1000; "
        r".*epoch-0001: .*\. Restore one from a copy, or remove .* to start anew",
    ):
        Checkpoints(place_of_two).latest()


@pytest.fixture
def place_of_two(tmp_path):
    store = Checkpoints(tmp_path)
    for epoch in (1, 2):
        save(store, epoch)
        (tmp_path / f"epoch-000{epoch}" / "rows.bin").write_bytes(b"odd")
    return tmp_path


def test_damage_after_the_check_is_found_too(tmp_path):
    store = Checkpoints(tmp_path)
    save(store, 1)
    found = store.latest()
    file = tmp_path / "epoch-0001" / "state.pt"
    file.write_bytes(flipped(file.read_bytes(), random.Random(1)))
    with pytest.raises(CheckpointError, match=r"epoch-0001: state\.pt does not match its SHA-256"):
        found.load("state.pt")


@pytest.mark.parametrize(("again", "left"), [(4, "epoch-0004-2"), (5, "epoch-0005")])
def test_damaged_checkpoints_do_not_count_as_kept(again, left, tmp_path):
    store = Checkpoints(tmp_path)
    for epoch in (3, 4):
        save(store, epoch)
    (tmp_path / "epoch-0004" / "rows.bin").write_bytes(b"odd")
    assert store.latest().epoch == 3
    save(store, again)
    assert names(tmp_path) == ["epoch-0003", left]
    assert store.latest().name == left
    assert store.latest().damaged == ()


def test_after_two_damaged_ones_training_goes_on_from_the_third(tmp_path):
    store = Checkpoints(tmp_path, keep=3)
    for epoch in (2, 3, 4):
        save(store, epoch)
    for epoch in (3, 4):
        (tmp_path / f"epoch-000{epoch}" / "rows.bin").write_bytes(b"odd")
    assert store.latest().epoch == 2
    save(store, 3)
    assert names(tmp_path) == ["epoch-0002", "epoch-0003-2"]


def test_what_cannot_be_removed_is_a_warning_for_the_new_checkpoint_is_safe(tmp_path, monkeypatch, caplog):
    store = Checkpoints(tmp_path)
    for epoch in (3, 4):
        save(store, epoch)
    (tmp_path / "epoch-0004" / "rows.bin").write_bytes(b"odd")
    assert store.latest().epoch == 3

    def refuse(path, *args):
        raise OSError(errno.EBUSY, "Device or resource busy", str(path))

    monkeypatch.setattr(LocalFolder, "remove", refuse)
    with caplog.at_level(logging.WARNING):
        assert save(store, 4) == "epoch-0004-2"
        assert save(store, 4) == "epoch-0004-3", "the damaged one is still known as such"
    assert f"checkpoint {tmp_path / 'epoch-0004'} cannot be removed: [Errno 16] Device or resource busy" in caplog.text
    assert store.latest().name == "epoch-0004-3"


def test_unreadable_is_not_damaged(tmp_path, monkeypatch):
    store = Checkpoints(tmp_path)
    save(store, 1)

    def refuse(path):
        raise PermissionError(errno.EACCES, "Permission denied", str(path))

    monkeypatch.setattr(Path, "read_bytes", refuse)
    with pytest.raises(PermissionError):
        store.latest()
