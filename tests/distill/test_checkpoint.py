"""The store of checkpoints on a local disk and behind pyarrow: what it keeps, accepts and refuses."""

import os
import shutil
from collections import Counter, OrderedDict
from pathlib import Path

import numpy as np
import pyarrow.fs
import pytest
import torch
from checkpoint_samples import memory_filesystem, names, rows, save
from torch import nn

from distill.checkpoint import CheckpointError, Checkpoints

STATE = {
    "model": OrderedDict(weight=torch.arange(6.0).reshape(2, 3), steps=torch.tensor(4)),
    "optimizer": {
        "state": {0: {"momentum": torch.ones(3)}},
        "groups": [{"lr": 0.1, "params": [0, 1], "nesterov": False}],
    },
    "scheduler": {"milestones": Counter({3: 1}), "last": None, "name": "steps", "pair": (1, 2.5)},
}


@pytest.fixture(params=["local", "subtree", "memory"])
def place(request, tmp_path):
    """Where a store may lie: a directory, and two file systems behind pyarrow."""
    if request.param == "local":
        return tmp_path / "run"
    if request.param == "subtree":
        return pyarrow.fs.SubTreeFileSystem(str(tmp_path), pyarrow.fs.LocalFileSystem()), "bucket/run"
    return memory_filesystem()


def test_nothing_saved_is_no_error(place):
    assert Checkpoints(place).latest() is None


def test_what_is_saved_is_loaded(place):
    store = Checkpoints(place)
    assert store.save({"state.pt": STATE, "rows.bin": rows(7)}, epoch=7, step=431, config_hash="abc") == "epoch-0007"
    found = Checkpoints(place).latest("abc")
    assert (found.name, found.epoch, found.step, found.damaged) == ("epoch-0007", 7, 431, ())
    assert found.path("rows.bin").read_bytes() == b"\7" * 1000
    loaded = found.load("state.pt")
    assert loaded["scheduler"] == STATE["scheduler"]
    assert loaded["optimizer"]["groups"] == STATE["optimizer"]["groups"]
    assert torch.equal(loaded["model"]["weight"], STATE["model"]["weight"])
    assert torch.equal(loaded["optimizer"]["state"][0]["momentum"], torch.ones(3))


def test_newest_is_of_the_highest_epoch_whatever_the_clock_says(tmp_path):
    store = Checkpoints(tmp_path, keep=3)
    for epoch in (9, 10, 10_000):
        save(store, epoch)
    os.utime(tmp_path / "epoch-0009", (2e9, 2e9))
    assert store.latest().epoch == 10_000
    shutil.rmtree(tmp_path / "epoch-10000")
    assert store.latest().epoch == 10


@pytest.mark.parametrize("keep", [1, 2, 4])
def test_keeps_the_newest(place, keep):
    store = Checkpoints(place, keep=keep)
    for epoch in range(1, 7):
        save(store, epoch)
        assert names(place) == [f"epoch-{kept:04d}" for kept in range(max(1, epoch - keep + 1), epoch + 1)]


def test_the_same_epoch_again_replaces_without_writing_over(place):
    store = Checkpoints(place)
    save(store, 1)
    save(store, 2)
    assert store.save({"state.pt": {"x": 1}}, epoch=2, step=25, config_hash="abc") == "epoch-0002-2"
    assert names(place) == ["epoch-0001", "epoch-0002-2"]
    assert (store.latest().epoch, store.latest().step) == (2, 25)


def test_a_run_that_forgot_to_resume_removes_nothing(place):
    save(Checkpoints(place), 5)
    with pytest.raises(CheckpointError, match=r"run has epoch-0005, later than epoch 1, .*: resume from it"):
        save(Checkpoints(place), 1)
    assert names(place) == ["epoch-0005"]


def test_a_checkpoint_of_another_configuration_is_refused(place):
    store = Checkpoints(place)
    save(store, 3, config_hash="abc")
    assert store.latest("abc").epoch == store.latest().epoch == 3
    with pytest.raises(
        CheckpointError, match=r"epoch-0003 must be of configuration def, found abc: take another folder"
    ):
        store.latest("def")


def test_other_errors_pass_and_leave_nothing(place):
    def broken(path):
        path.write_bytes(b"half")
        raise KeyError("a bug of the caller")

    with pytest.raises(KeyError, match="a bug of the caller"):
        Checkpoints(place).save({"x.bin": broken}, epoch=1, step=1, config_hash="")
    assert Checkpoints(place).latest() is None
    if isinstance(place, Path):
        assert names(place) == []


@pytest.mark.parametrize(
    ("value", "where"),
    [
        ({"a": [{"lr": np.float64(0.1)}]}, r"state\.pt\['a'\]\[0\]\['lr'\] is numpy\.float64"),
        ({"a": np.zeros(2)}, r"state\.pt\['a'\] is numpy\.ndarray"),
        ({"a": {"b": Path("x")}}, r"state\.pt\['a'\]\['b'\] is pathlib.*PosixPath"),
        ({np.int64(1): 2}, r"key np\.int64\(1\) of state\.pt is numpy\.int64"),
        ({"model": nn.Linear(1, 1)}, r"state\.pt\['model'\] is torch\.nn\.modules\.linear\.Linear"),
    ],
)
def test_what_could_not_be_loaded_is_refused_when_saving(value, where, tmp_path):
    with pytest.raises(
        ValueError, match=rf"checkpoints hold tensors, numbers, strings and their containers, but {where}$"
    ):
        Checkpoints(tmp_path).save({"state.pt": value}, epoch=1, step=1, config_hash="")
    assert names(tmp_path) == []


def test_what_is_accepted_when_saving_loads(tmp_path):
    value = {
        "plain": [1, 2.5, True, "text", b"bytes", 1j, None, {1, 2}, (3,)],
        "torch": [torch.Size([2, 3]), torch.bfloat16, torch.device("cpu")],
        "counter": Counter("aab"),
        ("a", 1): -float("inf"),
        "parameter": nn.Parameter(torch.ones(2)),
        "rng": torch.get_rng_state(),
    }
    store = Checkpoints(tmp_path)
    store.save({"state.pt": value}, epoch=1, step=1, config_hash="")
    loaded = store.latest().load("state.pt")
    assert {key: loaded[key] for key in list(value)[:4]} == {key: value[key] for key in list(value)[:4]}
    assert torch.equal(loaded["parameter"], value["parameter"])
    assert torch.equal(loaded["rng"], value["rng"])


@pytest.mark.parametrize("name", ["manifest.json", "../x.pt", "a/b.pt", ".hidden", ""])
def test_file_names_are_plain(name, tmp_path):
    with pytest.raises(ValueError, match=r"files must have plain names other than manifest\.json, found "):
        Checkpoints(tmp_path).save({name: {}}, epoch=1, step=1, config_hash="")


def test_content_that_writes_nothing_is_named(tmp_path):
    with pytest.raises(ValueError, match=r"what is given for x\.bin must write one file to that path, and wrote none"):
        Checkpoints(tmp_path).save({"x.bin": lambda path: None}, epoch=1, step=1, config_hash="")
    assert names(tmp_path) == []


def test_unknown_file_shows_the_menu(tmp_path):
    store = Checkpoints(tmp_path)
    save(store, 1)
    with pytest.raises(CheckpointError, match=r"epoch-0001 has no file 'model\.pt', only state\.pt, rows\.bin"):
        store.latest().load("model.pt")


def test_a_remote_checkpoint_outlives_its_store():
    place = memory_filesystem()
    save(Checkpoints(place), 1)
    found = Checkpoints(place).latest()
    assert found.load("state.pt")["epoch"] == 1


def test_other_files_in_the_folder_are_left_alone(place, tmp_path):
    store = Checkpoints(place, keep=1)
    save(store, 1)
    if isinstance(place, Path):
        (place / "notes").mkdir()
        (place / "epoch-last").mkdir()
    else:
        place[0].create_dir(f"{place[1]}/notes")
        place[0].create_dir(f"{place[1]}/epoch-last")
    save(store, 2)
    assert names(place) == ["epoch-0002", "epoch-last", "notes"]


def test_constructor_checks():
    with pytest.raises(ValueError, match="keep must be at least 1, found 0"):
        Checkpoints("x", keep=0)
    with pytest.raises(ValueError, match=r"found the URI s3://bucket/run: give pyarrow\.fs\.FileSystem\.from_uri"):
        Checkpoints("s3://bucket/run")
