from __future__ import annotations

from pathlib import Path

import pytest

from orchestrator.tracking.target import Target, replace_file, spool_directory


def test_default_is_a_sqlite_file_beside_the_outputs_by_absolute_uri(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    target = Target.beside(Path("outputs"), "digits")
    assert target.tracking_uri == f"sqlite:///{tmp_path}/outputs/mlflow.db"
    assert target.artifact_location == f"file://{tmp_path}/outputs/mlartifacts/digits"
    assert not target.is_server


def test_relative_database_becomes_absolute(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert Target.beside(Path("outputs"), "digits", "sqlite:///x.db").tracking_uri == f"sqlite:///{tmp_path}/x.db"


def test_server_keeps_its_own_artifacts():
    target = Target.beside(Path("outputs"), "digits", "https://mlflow.example.org/")
    assert target == Target("https://mlflow.example.org", "digits", None)
    assert target.is_server


@pytest.mark.parametrize("uri", ["./mlruns", "file:///tmp/mlruns", "/tmp/mlruns"])
def test_folders_are_refused(uri):
    with pytest.raises(ValueError, match=r"run\.tracking_uri: must be http://"):
        Target.beside(Path("outputs"), "digits", uri)


@pytest.mark.parametrize("uri", ["https://me:s3cret@mlflow.example.org", "postgresql://me:s3cret@db/mlflow"])
def test_passwords_are_refused_and_not_repeated(uri):
    with pytest.raises(ValueError, match="must not hold a password") as caught:
        Target.beside(Path("outputs"), "digits", uri)
    assert "s3cret" not in str(caught.value)


def test_target_survives_its_file(tmp_path):
    directory = spool_directory(tmp_path, "digits")
    directory.mkdir(parents=True)
    target = Target.beside(tmp_path, "digits")
    target.save(directory)
    assert Target.load(directory) == target


def test_a_failed_write_leaves_the_old_file(tmp_path):
    file = tmp_path / "cursor.json"
    replace_file(file, "old")
    with pytest.raises(UnicodeEncodeError):
        replace_file(file, "new \udc80")
    assert file.read_text() == "old"
