"""A sweep of segmentation in this process: metrics, answer, picture of predictions and exported student."""

from __future__ import annotations

import base64
import json
import logging
from functools import partial
from pathlib import Path

import pytest
import torch
from mlflow.tracking import MlflowClient
from PIL import Image
from small_dense import SmallFCN, Squares

from distill.tasks import SemanticSegmentation
from orchestrator import cli, prediction_picture
from orchestrator.compare import compare
from orchestrator.compare.command import command
from orchestrator.conclusion import conclude
from orchestrator.config import load
from orchestrator.config.design import Design
from orchestrator.description import describe
from orchestrator.job import Job
from orchestrator.outputs import Outputs
from orchestrator.session import Session
from orchestrator.shared_view import RUNS_VIEW, TAG_PREFIX, unpack
from orchestrator.teachers import prepare_teachers
from orchestrator.teaching import teacher_directory
from orchestrator.tracking import SweepLog, Target, Tracker, spool_directory
from orchestrator.training import _run_here, run_jobs

FILE = Path(__file__).with_name("small_dense.yaml")


@pytest.fixture(scope="module")
def root(tmp_path_factory) -> Path:
    """Outputs of the whole sweep, run by run."""
    root = tmp_path_factory.mktemp("outputs")
    experiment = load(FILE, [f"run.storage={root}"])
    design, outputs = Design(experiment), Outputs(str(root), experiment.name)
    description = describe(experiment, planned=2)
    outputs.claim(description, resume=False)
    with Tracker(spool_directory(root, experiment.name), target=Target.beside(root, experiment.name, None)) as tracker:
        mirror = SweepLog(tracker, description, source=FILE.name)
        mirror.start()
        said: list[str] = []
        prepare_teachers(
            [design.planned()[-1].config],
            outputs.root,
            run_jobs=partial(run_jobs, _run_here),
            mirror=mirror,
            say=said.append,
        )
        for run in design.planned():
            job = Job(
                config=run.config,
                config_hash=run.config_hash,
                directory=outputs.run_directory(run.key),
                teacher=teacher_directory(run.config, outputs.root),
                name=run.name,
            )
            assert _run_here(run, job, Session(outputs, mirror))["status"] == "finished"
        conclude(outputs, mirror)
        mirror.end("FINISHED")
    (root / "said.txt").write_text("\n".join(said))
    return root


def test_the_teacher_is_said_to_have_reached_its_miou(root):
    said = (root / "said.txt").read_text()
    assert "epoch 2, validation mIoU " in said
    assert ", test mIoU " in said


def test_runs_are_ranked_by_miou_and_told_in_points(root):
    comparison = compare(root / "small_dense")
    assert comparison.metric.label == "validation mIoU"
    assert "points over the student alone" in comparison.sentences[1] or "points against" in comparison.sentences[1]
    assert "ranked by validation mIoU" in (root / "small_dense" / "compare" / "report.html").read_text()


def test_mlflow_has_miou_and_each_class_under_a_legal_name(root):
    client = MlflowClient(f"sqlite:///{root}/mlflow.db")
    experiment = client.get_experiment_by_name("small_dense")
    runs = client.search_runs([experiment.experiment_id])
    [run] = [run for run in runs if run.data.tags["kind"] == "run"]
    record = Outputs(str(root), "small_dense").past_results()
    [result] = [each["result"] for each in record.values() if each["kind"] == "run"]
    assert run.data.metrics["result/miou"] == result["validation"]["miou"]
    assert run.data.metrics["result/test_miou"] == result["test"]["miou"]
    assert run.data.metrics["result/teacher_miou"] == result["teacher"]["validation"]["miou"]
    assert "result/gain" in run.data.metrics
    assert "result/accuracy" not in run.data.metrics
    assert {"val/iou/square", "val/iou/wall/floor_ painted"} <= set(run.data.metrics)
    state = unpack(experiment.tags[TAG_PREFIX + RUNS_VIEW])
    assert "metrics.`result/miou`" in state["selectedColumns"]
    assert not any("iou/square" in column for column in state["selectedColumns"])
    names = [chart["displayName"] for chart in state["compareRunCharts"]]
    assert "compare/predictions" in names
    assert "mIoU against minutes" in names
    assert "val/miou" in names


def test_the_picture_of_predictions_lies_in_the_report_too(root):
    folder = root / "small_dense" / "compare"
    with Image.open(folder / "predictions.png") as picture:
        assert picture.width > 5 * 200  # image, truth, teacher, student alone, best
    embedded = base64.b64encode((folder / "predictions.png").read_bytes()).decode()
    assert embedded in (folder / "report.html").read_text()


def test_compare_keeps_the_picture(root, capsys):
    picture = (root / "small_dense" / "compare" / "predictions.png").read_bytes()
    assert command("small_dense", storage=str(root), as_json=False) == 0
    assert (root / "small_dense" / "compare" / "predictions.png").read_bytes() == picture
    assert "data:image/png" in (root / "small_dense" / "compare" / "report.html").read_text()


def test_a_picture_that_fails_is_one_warning(root, caplog, monkeypatch):
    from orchestrator.conclusion import _draw_predictions

    def broken(*arguments):
        raise RuntimeError("no such image")

    monkeypatch.setattr(prediction_picture, "_figure", broken)
    outputs = Outputs(str(root), "small_dense")
    kept = (outputs.folder / "compare" / "predictions.png").read_bytes()
    with caplog.at_level(logging.WARNING):
        _draw_predictions(compare(outputs.folder), outputs)
    assert [record.getMessage() for record in caplog.records] == [
        "no picture of predictions: RuntimeError: no such image"
    ]
    (outputs.folder / "compare" / "predictions.png").write_bytes(kept)


def test_what_is_drawn_is_what_the_stored_models_find(root, monkeypatch):
    drawn = []
    original = SemanticSegmentation.draw_output

    def draw_output(self, images, output, classes):
        drawn.append(output["out"])
        return original(self, images, output, classes)

    monkeypatch.setattr(SemanticSegmentation, "draw_output", draw_output)
    outputs = Outputs(str(root), "small_dense")
    comparison = compare(outputs.folder)
    prediction_picture.draw_predictions(comparison, outputs, root / "again.png")
    experiment = load(FILE, [f"run.storage={root}"])
    from distill.build import build
    from distill.slots import DATASET

    validation = build(experiment.data, DATASET, modules=["small_dense"]).load().validation
    images = (torch.as_tensor(Squares().read(validation.indices[:5])).float() / 255 - 0.3) / 0.3
    best = SmallFCN(3)
    best.load_state_dict(
        torch.load(outputs.folder / "runs" / comparison.best_run.key / "student.pt", weights_only=True)
    )
    teacher = SmallFCN(3, width=8)
    [weights] = (root / "teachers").glob("*/student.pt")
    teacher.load_state_dict(torch.load(weights, weights_only=True))
    with torch.no_grad():
        expected = [teacher.eval()(images)["out"], best.eval()(images)["out"]]
    assert len(drawn) == 3
    torch.testing.assert_close(drawn[0], expected[0])
    torch.testing.assert_close(drawn[2], expected[1])


def test_the_exported_student_gives_logits_at_any_batch_size(root, monkeypatch):
    import mlflow.pyfunc
    import mlflow.pytorch

    monkeypatch.setenv("MLFLOW_ALLOW_PICKLE_DESERIALIZATION", "false")
    folder = root / "small_dense" / "best"
    loaded = mlflow.pytorch.load_model(str(folder / "model"))
    student = SmallFCN(3)
    student.load_state_dict(torch.load(folder / "student.pt", weights_only=True))
    images = torch.randn(5, 3, 16, 16)
    with torch.no_grad():
        torch.testing.assert_close(loaded(images), student.eval()(images)["out"])
    served = mlflow.pyfunc.load_model(str(folder / "model"))
    assert served.metadata.signature.outputs.inputs[0].shape == (-1, 3, 16, 16)
    assert served.predict(images.numpy()).shape == (5, 3, 16, 16)


def test_check_shows_maps_and_refuses_paths_between_maps_that_do_not_fit(root, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert cli.main(["check", str(FILE), "--json"]) == 0
    plan = json.loads(capsys.readouterr().out)
    [branch] = plan["branches"]
    assert branch["image_shape"] == [3, 16, 16]
    assert branch["paths"][0]["connections"] == [
        {"student": "output", "teacher": "output", "student_shape": [3, 16, 16], "teacher_shape": [3, 16, 16]}
    ]
    assert cli.main(["check", str(FILE), "student.model={use: ResNet8}"]) == 2
    [said] = capsys.readouterr().err.splitlines()
    assert "student.model" in said
    assert "logits [class, height, width] are needed" in said


def test_one_run_prints_no_class_by_itself(tmp_path, monkeypatch, capsys):
    threads = torch.get_num_threads()
    assert cli.main(["train", str(FILE), "search=null", "name=one", f"run.storage={tmp_path}"]) == 0
    torch.set_num_threads(threads)
    said = capsys.readouterr().out
    assert "validation mIoU" in said
    assert "iou/" not in said
