"""The runs of a sweep in plain processes: the same results, recorded, and none of them twice."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parents[2]))  # benchmarks are no part of the package

from benchmarks import pool
from distill.host import LocalHost
from orchestrator.compare import compare
from orchestrator.config import PlannedRun, load
from orchestrator.config.design import Design
from orchestrator.execute import execute
from orchestrator.job import Job
from orchestrator.lock import lock
from orchestrator.storage import Storage
from orchestrator.teaching import teacher_directory

FILE = Path(__file__).parents[1] / "orchestrator" / "small_experiment.yaml"
SMALL = ["search.seed.grid=[0]", "search.paths.sets=[[soft_target]]"]


def settings(root: Path) -> list[str]:
    return [f"run.storage={root}", *SMALL]


def main(root: Path, *more: str) -> int:
    return pool.main([str(FILE), *settings(root), *more])


def planned(root: Path) -> list[PlannedRun]:
    return Design(load(FILE, settings(root))).planned()


def records(root: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (root / "small_experiment" / "runs.jsonl").read_text().splitlines()]


@pytest.fixture
def no_run(monkeypatch):
    """Fails the test where a run is started."""

    def fail(run, outputs):
        raise AssertionError(f"{run.name} was started")

    monkeypatch.setattr(pool, "_job", fail)


@pytest.fixture(scope="module")
def root(tmp_path_factory) -> Path:
    """An experiment of three runs, of which the last failed: a file lies where its folder is to be."""
    root = tmp_path_factory.mktemp("outputs")
    folder = root / "small_experiment" / "runs"
    folder.mkdir(parents=True)
    (folder / planned(root)[-1].key).write_text("in the way")
    assert main(root, "--processes", "2") == 1
    return root


@pytest.mark.slow
def test_a_failed_run_is_recorded_and_tried_again_alone(root, capsys):
    [failed] = [record for record in records(root) if record["result"]["status"] == "failed"]
    assert failed["key"] == planned(root)[-1].key
    assert "Error" in failed["result"]["reason"]
    assert len(records(root)) == 3
    (root / "small_experiment" / "runs" / failed["key"]).unlink()
    assert main(root, "--processes", "1") == 0
    assert len(records(root)) == 4
    assert records(root)[-1]["key"] == failed["key"]
    assert "val/accuracy" in capsys.readouterr().out
    comparison = compare(root / "small_experiment")
    assert len(comparison.arms) == 3
    assert not comparison.incomplete


@pytest.mark.slow
def test_results_are_those_of_the_training_function(root, tmp_path):
    run = planned(root)[1]
    job = Job(run.config, run.config_hash, str(tmp_path), teacher=teacher_directory(run.config, Storage(str(root))))
    expected = execute(job.to_dict(), LocalHost(torch.device("cpu")))
    found = next(record for record in records(root) if record["key"] == run.key)
    assert {**found["result"], "minutes": 0} == {**json.loads(json.dumps(expected)), "minutes": 0}
    assert found["arm"] == run.arm


@pytest.mark.slow
def test_what_has_ended_is_not_run_again(root, no_run):
    assert main(root) == 0


@pytest.mark.slow
def test_a_stopped_run_has_ended(root, no_run):
    file = root / "small_experiment" / "runs.jsonl"
    before = file.read_text()
    stopped = records(root)[0]
    stopped["result"] = {"status": "stopped", "epochs": 1}
    try:
        file.write_text(f"{before}{json.dumps(stopped)}\n")
        assert main(root) == 0
    finally:
        file.write_text(before)


@pytest.mark.slow
def test_a_folder_that_is_in_use_is_left_alone(root, no_run, capsys):
    before = records(root)
    with lock(str(root / "small_experiment"), command="sweep small_experiment"):
        assert main(root) == 2
    assert "is in use by" in capsys.readouterr().err
    assert records(root) == before


class Deadly:
    """Its arrival kills a process."""

    def to_dict(self) -> dict[str, Any]:
        return {"deadly": self}

    def __reduce__(self) -> tuple[Any, ...]:
        return os._exit, (1,)


def test_what_a_killed_process_took_along_is_named(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(pool, "_job", lambda run, outputs: Deadly())
    monkeypatch.setattr(pool, "_make_teachers", lambda runs, outputs, device: {})
    assert main(tmp_path, "--processes", "1") == 1
    error = capsys.readouterr().err
    assert "the 3 runs that had not ended" in error
    assert all(run.name in error for run in planned(tmp_path))
    assert not (tmp_path / "small_experiment" / "runs.jsonl").exists()


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("run.num_arms=2", "run.num_arms: arms that are proposed on the way need distillery sweep, found 2"),
        ("run.scheduler={use: ASHA}", "run.scheduler: arms are stopped by distillery sweep alone, found ASHA"),
        ("run.workers=2", "run.workers: a run of several workers needs distillery sweep, found 2"),
        ("store=float16", "store: rounded targets need the store of distillery sweep, found float16"),
        ("train.epocs=3", "train.epocs"),
    ],
)
def test_what_only_a_sweep_can_do_is_refused_in_one_line(setting, message, tmp_path, no_run, capsys):
    assert main(tmp_path, setting) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    assert not (tmp_path / "small_experiment").exists()


@pytest.mark.slow
def test_what_is_skipped_is_said(root, no_run, capsys):
    assert main(root, "store=exact", "run.max_failures=1") == 0
    said = capsys.readouterr().out.splitlines()
    assert "store: exact: nothing is stored, each run asks its teacher" in said
    assert "run.max_failures: what fails is tried again by the same command" in said


@pytest.mark.parametrize(
    ("metric", "result", "shown"),
    [
        ("val/loss", {"status": "finished", "validation": {"loss": 0.123456}}, "val/loss 0.1235"),
        ("val/agreement", {"status": "finished", "validation": {"accuracy": 90.0}}, "finished"),
        ("val/accuracy", {"status": "finished", "validation": None}, "finished"),
        ("val/accuracy", {"status": "failed", "reason": "the disk is full"}, "failed: the disk is full"),
    ],
)
def test_a_run_is_shown_with_the_metric_that_ranks(metric, result, shown):
    assert pool._shown(result, metric) == shown
