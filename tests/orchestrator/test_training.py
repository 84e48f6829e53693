import json
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import torch

from distill.data import Digits, Split
from distill.models import ResNet8
from orchestrator.compare.records import Records
from orchestrator.config import UserError, load
from orchestrator.outputs import Outputs
from orchestrator.storage import Storage
from orchestrator.teachers import teach
from orchestrator.training import train

FILE = Path(__file__).with_name("small_experiment.yaml")
SETTINGS = ["search=null", "name=one"]


@pytest.fixture(scope="module")
def root(tmp_path_factory) -> Path:
    """Outputs of one run in this process, for the tests that look at what it left."""
    root = tmp_path_factory.mktemp("outputs")
    threads = torch.get_num_threads()
    assert train(load(FILE, [*SETTINGS, f"run.storage={root}"]), resume=False, address=None) == 0
    torch.set_num_threads(threads)
    return root


def run_folder(root: Path) -> Path:
    [folder] = (root / "one" / "runs").iterdir()
    return folder


def test_the_result_says_what_was_reached(root):
    result = json.loads((run_folder(root) / "result.json").read_text())
    assert result["status"] == "finished"
    assert (
        set(result["validation"])
        == set(result["test"])
        == {"loss", "accuracy", "top5", "agreement", "calibration_error"}
    )
    assert result["teacher"]["test"]["accuracy"] > 0
    assert result["student_parameters"] < result["teacher_parameters"]
    record = Outputs(str(root), "one").past_results()[run_folder(root).name]
    assert record["result"] == {key: value for key, value in result.items() if key != "files"}


def test_the_student_loads_as_the_plain_model_with_the_same_accuracy(root):
    result = json.loads((run_folder(root) / "result.json").read_text())
    model = ResNet8(num_classes=10, in_channels=1, width=4)
    model.load_state_dict(torch.load(run_folder(root) / "student.pt", weights_only=True))
    data = Digits(split=Split(train=128, validation=200, teacher="rest")).load()
    positions = torch.arange(len(data.test)).numpy()
    images = (data.test.read(positions).float() / 255 - data.mean[0]) / data.std[0]
    with torch.no_grad():
        guesses = model.eval()(images).argmax(1)
    accuracy = (guesses == torch.from_numpy(data.test.labels)).float().mean().item() * 100
    assert accuracy == pytest.approx(result["test"]["accuracy"], abs=1e-4)


def test_the_trajectory_has_every_step_of_every_path(root):
    table = pq.read_table(run_folder(root) / "trajectory.parquet")
    assert table["step"].to_pylist() == list(range(8))
    assert {"soft_target/weight", "attention/loss", "attention.layer1/weighted"} <= set(table.column_names)
    assert (run_folder(root) / "trajectory.png").stat().st_size > 10_000


def test_two_checkpoints_are_kept(root):
    names = Storage(str(run_folder(root))).names("checkpoints")
    assert names == ["epoch-0001", "epoch-0002"]


def test_mlflow_has_the_run_under_the_documented_names(root):
    from mlflow import MlflowClient

    from orchestrator.sync import sync

    assert sync(root) == 0  # whatever the mirror was too late for
    client = MlflowClient(f"sqlite:///{root / 'mlflow.db'}")
    [experiment] = [each for each in client.search_experiments() if each.name == "one"]
    runs = {run.data.tags["kind"]: run for run in client.search_runs([experiment.experiment_id])}
    run = runs["run"]
    assert "teacher" in runs
    assert run.info.status == "FINISHED"
    assert run.data.params["train.optimizer.lr"] == "0.05"
    assert run.data.params["path.attention"] == "on"
    assert run.data.metrics["result/test_accuracy"] == pytest.approx(
        json.loads((run_folder(root) / "result.json").read_text())["test"]["accuracy"]
    )
    history = client.get_metric_history(run.info.run_id, "train/weight/attention")
    assert [point.step for point in history] == [1, 2]
    assert {artifact.path for artifact in client.list_artifacts(run.info.run_id)} >= {
        "trajectory.parquet",
        "trajectory.png",
    }


def test_the_records_are_what_compare_reads(root):
    from orchestrator.compare.folder import Folder

    records = Records.read(Folder(str(root / "one")))
    assert [run.paths for run in records.runs] == [("attention", "soft_target")]


def test_running_again_needs_resume_and_then_has_nothing_to_do(root, capsys):
    experiment = load(FILE, [*SETTINGS, f"run.storage={root}"])
    with pytest.raises(UserError, match="--resume"):
        train(experiment, resume=False, address=None)
    assert train(experiment, resume=True, address=None) == 0
    assert "finished already" in capsys.readouterr().out


def test_the_teacher_is_reused(root, capsys):
    assert teach(load(FILE, [*SETTINGS, f"run.storage={root}"]), address=None) == 0
    assert "reused" in capsys.readouterr().out
    assert len(Storage(str(root)).names("teachers")) == 1


def test_a_run_where_an_environment_names_a_cluster_is_the_cluster_s(tmp_path, monkeypatch):
    """As in a job and in the script of ``ray submit``: their process may lie on a head without a GPU."""
    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:1")
    asked = []

    def refuse(address, **options):
        asked.append(address)
        raise ConnectionError("nobody is there")

    monkeypatch.setattr("ray.init", refuse)
    monkeypatch.setattr("ray.is_initialized", lambda: False)  # other tests share a cluster
    with pytest.raises(ValueError, match=r"cannot reach a Ray cluster at 127\.0\.0\.1:1"):
        train(load(FILE, [*SETTINGS, f"run.storage={tmp_path}"]), resume=False, address=None)
    assert asked == ["127.0.0.1:1"]
