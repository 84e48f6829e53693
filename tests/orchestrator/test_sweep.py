"""One small real sweep, end to end: Ray Tune, records, MLflow, the comparison, and going on after an interruption."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from orchestrator.compare import compare
from orchestrator.config import Experiment, UserError, load
from orchestrator.sweep import sweep
from orchestrator.sync import sync

pytestmark = pytest.mark.ray

FILE = Path(__file__).with_name("small_experiment.yaml")


def experiment(root: Path, *settings: str) -> Experiment:
    return load(FILE, [f"run.storage={root}", *settings])


def records(root: Path, name: str = "small_experiment") -> list[dict[str, Any]]:
    return [json.loads(line) for line in (root / name / "runs.jsonl").read_text().splitlines()]


@pytest.fixture(scope="module")
def root(ray_cluster: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("outputs")
    assert sweep(experiment(root), resume=False, address=None, dry_run=False) == 0
    return root


def test_every_arm_and_the_student_alone_ran_on_every_seed(root):
    ran = {(record["arm"], record["seed"]) for record in records(root)}
    assert len(ran) == len(records(root)) == 2 + 4 * 2
    assert {seed for arm, seed in ran if arm == "alone"} == {0, 1}
    assert all(record["result"]["status"] == "finished" for record in records(root))


def test_all_arms_of_a_seed_start_from_the_same_student_and_see_the_same_batches(root):
    """The first step's task loss is that of the initial weights on the first batch: equal within a seed alone."""
    import pyarrow.parquet as pq

    first: dict[int, set[float]] = {0: set(), 1: set()}
    for record in records(root):
        table = pq.read_table(root / "small_experiment" / "runs" / record["key"] / "trajectory.parquet")
        first[record["seed"]].add(table["task/loss"][0].as_py())
    assert len(first[0]) == len(first[1]) == 1
    assert first[0] != first[1]


def test_the_teacher_was_trained_once_for_all(root):
    [folder] = (root / "teachers").iterdir()
    teacher = json.loads((folder / "result.json").read_text())
    assert {record["result"]["teacher"]["test"]["accuracy"] for record in records(root) if record["paths"]} == {
        teacher["test"]["accuracy"]
    }


def test_the_comparison_is_of_all_arms_and_the_best_student_is_saved(root):
    comparison = compare(root / "small_experiment")
    assert len(comparison.arms) == 5
    assert comparison.best is not None
    weights = torch.load(root / "small_experiment" / "best" / "student.pt", weights_only=True)
    assert not any("adapter" in name or "paths" in name for name in weights)
    assert (root / "small_experiment" / "compare" / "report.html").is_file()


def test_mlflow_shows_one_sweep_with_a_child_a_run_and_the_answer_first(root, monkeypatch):
    from mlflow import MlflowClient

    assert sync(root) == 0
    client = MlflowClient(f"sqlite:///{root / 'mlflow.db'}")
    [found] = [each for each in client.search_experiments() if each.name == "small_experiment"]
    runs = client.search_runs([found.experiment_id], max_results=100)
    [parent] = [run for run in runs if run.data.tags["kind"] == "sweep"]
    children = [run for run in runs if run.data.tags.get("mlflow.parentRunId") == parent.info.run_id]
    assert len(children) == 10 + 1  # and the teacher
    assert all(run.info.status == "FINISHED" for run in runs)
    note = found.tags["mlflow.note.content"]
    assert compare(root / "small_experiment").sentences[0] in note.splitlines()[0].replace("*", "")
    adaptive = next(run for run in children if run.data.tags["arm"].startswith("adaptive/soft_target+attention"))
    assert len(client.get_metric_history(adaptive.info.run_id, "train/weight/attention")) == 2
    assert "result/gain" in adaptive.data.metrics
    models = client.search_logged_models([found.experiment_id])
    assert [model.name for model in models] == ["student"]
    monkeypatch.setenv("MLFLOW_ALLOW_PICKLE_DESERIALIZATION", "false")
    monkeypatch.chdir(root)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{root / 'mlflow.db'}")
    import mlflow.pytorch

    student = mlflow.pytorch.load_model(f"models:/{models[0].model_id}")
    assert student(torch.zeros(5, 1, 8, 8)).shape == (5, 10)


def test_a_finished_sweep_is_refused_without_resume_and_has_nothing_to_do_with_it(root):
    with pytest.raises(UserError, match="--resume"):
        sweep(experiment(root), resume=False, address=None, dry_run=False)
    before = records(root)
    assert sweep(experiment(root), resume=True, address=None, dry_run=False) == 0
    assert records(root) == before


def test_an_interrupted_run_goes_on_and_ends_where_it_would_have(root):
    """Lose a run's end, as a killed driver would: its checkpoint of the first epoch is what is left."""
    folder = root / "small_experiment"
    lost = next(record for record in records(root) if record["arm"].startswith("adaptive/soft_target+attention"))
    runs = folder / "runs" / lost["key"]
    kept = [line for line in (folder / "runs.jsonl").read_text().splitlines() if json.loads(line)["key"] != lost["key"]]
    (folder / "runs.jsonl").write_text("\n".join(kept) + "\n")
    expected = torch.load(runs / "student.pt", weights_only=True)
    for name in ("student.pt", "result.json", "trajectory.parquet"):
        (runs / name).unlink()
    import shutil

    shutil.rmtree(runs / "checkpoints" / "epoch-0002")
    assert sweep(experiment(root), resume=True, address=None, dry_run=False) == 0
    again = torch.load(runs / "student.pt", weights_only=True)
    assert all(torch.equal(value, again[name]) for name, value in expected.items())
    assert len(records(root)) == len(kept) + 1


def test_another_configuration_under_the_same_name_is_refused_by_its_keys(root):
    with pytest.raises(UserError, match=r"train\.epochs: 2 there, 3 here"):
        sweep(experiment(root, "train.epochs=3"), resume=True, address=None, dry_run=False)


@pytest.mark.slow
def test_two_workers_train_one_run_each_nested_in_a_trial(root):
    """The teacher is the one that is there already."""
    settings = ["name=two", "run.workers=2", "search.seed.grid=[0]", "search.paths.sets=[[attention]]"]
    settings += ["search.aggregator.grid=[{use: Adaptive}]"]
    assert sweep(experiment(root, *settings), resume=False, address=None, dry_run=False) == 0
    ended = {record["arm"]: record["result"] for record in records(root, "two")}
    assert len(ended) == 2
    assert all(result["status"] == "finished" for result in ended.values())
    assert all(result["test"]["accuracy"] >= 0 for result in ended.values())
