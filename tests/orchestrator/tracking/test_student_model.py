"""The best student in MLflow: loaded without pickle, equal at a batch size that it was not exported with."""

from __future__ import annotations

import pytest
import torch
from mlflow.tracking import MlflowClient
from torch import nn

from orchestrator.tracking.mirror import Mirror
from orchestrator.tracking.student_model import save_student_model
from orchestrator.tracking.target import spool_directory
from orchestrator.tracking.tracker import Tracker


@pytest.fixture
def student():
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(1, 4, 3, padding=1),
        nn.BatchNorm2d(4),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(4, 10),
    )
    model(torch.randn(8, 1, 8, 8))  # gives BatchNorm statistics that a training mode would ignore
    return model.train()


def test_best_student_is_logged_once_and_loads_without_pickle(student, storage, target, monkeypatch):
    import mlflow.pytorch

    monkeypatch.setenv("MLFLOW_ALLOW_PICKLE_DESERIALIZATION", "false")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", target.tracking_uri)
    directory = spool_directory(storage, "digits")
    folder = save_student_model(student, torch.randn(2, 1, 8, 8), storage / "digits" / "student_model")
    assert student.training, "saving must leave the student as it was"
    with Tracker(directory, target=target, mirror=False) as tracker:
        tracker.start_run("a1", "adaptive s0")
        tracker.model("a1", folder, metrics={"result/accuracy": 86.5})
        tracker.end_run("a1", "FINISHED")
    for _ in range(2):
        mirror = Mirror(directory)
        mirror.send()
        (directory / "cursor.json").unlink()
    client = MlflowClient(target.tracking_uri)
    (model,) = client.search_logged_models([mirror.cursor.experiment_id])
    assert model.name == "student"
    assert str(model.status) == "READY"
    assert model.source_run_id == mirror.cursor.runs["a1"]
    assert [(m.key, m.value) for m in model.metrics] == [("result/accuracy", 86.5)]
    run = client.get_run(mirror.cursor.runs["a1"])
    assert [output.model_id for output in run.outputs.model_outputs] == [model.model_id]

    loaded = mlflow.pytorch.load_model(f"models:/{model.model_id}")
    images = torch.randn(5, 1, 8, 8)
    with torch.no_grad():
        torch.testing.assert_close(loaded(images), student.eval()(images), rtol=0, atol=0)
    files = {file.name for file in folder.rglob("*")}
    assert "model.pt2" in files
    assert not any(name.endswith((".pkl", ".pth")) for name in files)


def test_an_example_of_one_image_is_refused(student, tmp_path):
    with pytest.raises(ValueError, match="example: must hold at least 2 images"):
        save_student_model(student, torch.randn(1, 1, 8, 8), tmp_path / "model")
