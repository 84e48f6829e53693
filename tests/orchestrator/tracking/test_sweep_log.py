from __future__ import annotations

from types import SimpleNamespace

import pytest
from mlflow.tracking import MlflowClient
from PIL import Image

from orchestrator.shared_view import TAG_PREFIX, unpack
from orchestrator.tracking.mirror import Mirror
from orchestrator.tracking.sweep_log import SweepLog
from orchestrator.tracking.target import spool_directory
from orchestrator.tracking.tracker import Tracker

EXPERIMENT = {
    "name": "digits",
    "config": {"seed": 0, "search": {"seed": {"grid": [0, 1]}}},
    "config_hash": "c0ffee",
    "protocol": "holdout",
    "git": "0123abc",
    "versions": {"torch": "2.10.0"},
    "paths": {"attention": "AttentionTransfer", "soft_target": "SoftTarget"},
    "teacher_label": "ResNet20",
    "student_label": "ResNet8",
    "data_label": "Digits",
}


def _run(key, seed, paths=("attention",), context=None):
    return SimpleNamespace(
        key=key,
        name=f"{key} s{seed}",
        arm="single/attention" if paths else "alone",
        aggregator="single" if paths else "none",
        paths=paths,
        seed=seed,
        kind="run" if paths else "student",
        context=context or {},
        config={"seed": seed, "train": {"epochs": 2, "batch_size": 64, "optimizer": {"lr": 0.1}}},
        config_hash=f"hash{key}",
    )


def _result(accuracy, status="finished"):
    return {
        "status": status,
        "validation": {"accuracy": accuracy},
        "test": {"accuracy": accuracy - 1},
        "minutes": 0.5,
        "data_fingerprint": "d" * 64,
        "teacher": {"fingerprint": "e" * 16, "validation": {"accuracy": 90.0}},
    }


@pytest.fixture
def store(storage, target):
    """What was recorded, by key, once it is in MLflow."""
    directory = spool_directory(storage, "digits")
    tracker = Tracker(directory, target=target, mirror=False)
    log = SweepLog(tracker, EXPERIMENT, source="quickstart.yaml")

    def read():
        mirror = Mirror(directory)
        mirror.send()
        assert mirror.num_refused == 0
        client = MlflowClient(target.tracking_uri)
        runs = {key: client.get_run(run_id) for key, run_id in mirror.cursor.runs.items()}
        return client.get_experiment_by_name("digits"), runs

    yield log, read
    tracker.close()


def test_a_sweep_in_mlflow(store, tmp_path):
    log, read = store
    log.start()
    alone, run = _run("alone0", 0, ()), _run("a0", 0)
    for one in (alone, run):
        log.start_run(one)
        log.epoch(
            one.key,
            {"epoch": 1, "step": 20, "seconds": 1.0, "val/accuracy": 50.0, "train/weight/attention.layer1": 2.0},
        )
    log.end_run(run, _result(86.5))
    log.end_run(alone, _result(82.25))
    Image.new("RGB", (8, 8)).save(tmp_path / "effect.png")
    log.answer(
        "Helps: attention.\nHurts: none.",
        "| arm | n |\n|---|---|\n| a | 1 |",
        effects={"path_effect/attention": 4.25},
        pictures={"compare/path_effect": tmp_path / "effect.png"},
    )
    log.end("FINISHED")
    experiment, runs = read()

    sweep, child, control = runs["sweep"], runs["a0"], runs["alone0"]
    assert child.data.tags["mlflow.parentRunId"] == sweep.info.run_id
    assert (child.info.run_name, child.info.status, sweep.info.status) == ("a0 s0", "FINISHED", "FINISHED")
    expected = {
        "kind": "run",
        "arm": "single/attention",
        "seed": "0",
        "design": "c0ffee",
        "config_hash": "hasha0",
        "git_revision": "0123abc",
        "mlflow.source.git.commit": "0123abc",
        "mlflow.source.name": "quickstart.yaml",
        "data_fingerprint": "d" * 64,
        "teacher_fingerprint": "e" * 16,
        "protocol": "holdout",
        "versions": "torch 2.10.0",
        "status": "finished",
    }
    assert expected.items() <= child.data.tags.items()
    assert control.data.tags["kind"] == "student"
    assert sweep.data.tags["kind"] == "sweep"
    assert {"teacher": "ResNet20", "student": "ResNet8", "dataset": "Digits"}.items() <= child.data.params.items()
    assert child.data.params["path.soft_target"] == "off"
    assert sweep.data.params["search.seed.grid"] == "[0, 1]"
    assert child.data.metrics["val/accuracy"] == 50.0
    assert child.data.metrics["result/accuracy"] == 86.5
    # The student alone ended after it, and its own gain is nothing.
    assert child.data.metrics["result/gain"] == 4.25
    assert control.data.metrics["result/gain"] == 0.0
    assert sweep.data.metrics == {"path_effect/attention": 4.25}
    assert experiment.tags["mlflow.note.content"].splitlines()[0] == "Helps: attention. Hurts: none."
    charts = {chart["displayName"] for chart in unpack(experiment.tags[TAG_PREFIX + "distillery"])["compareRunCharts"]}
    assert {
        "compare/path_effect",
        "train/weight/attention",
        "train/weight/soft_target",
        "train/weight/attention.layer1",
    } <= charts
    assert [(i.dataset.name, i.dataset.digest) for i in child.inputs.dataset_inputs] == [("Digits", "d" * 36)]


def test_gain_is_over_the_same_seed_and_the_nearest_context(store):
    log, read = store
    log.start()
    runs = {
        (f"alone{seed}lr{lr}", ()): (_run(f"alone{seed}lr{lr}", seed, (), {"lr": lr}), 80.0 + seed + 10 * lr)
        for seed in (0, 1)
        for lr in (0.1, 0.2)
    }
    runs["a1", ("attention",)] = (_run("a1", 1, context={"lr": 0.2, "temperature": 4}), 90.0)
    runs["b1", ("attention",)] = (_run("b1", 1, context={"lr": 0.3}), 90.0)
    for run, accuracy in runs.values():
        log.start_run(run)
        log.end_run(run, _result(accuracy))
    _, found = read()
    assert found["a1"].data.metrics["result/gain"] == pytest.approx(90.0 - 83.0)
    assert "result/gain" not in found["b1"].data.metrics


def test_gain_of_a_resumed_sweep_uses_what_ended_before(store):
    log, read = store
    log.start()
    log.start_run(_run("alone0", 0, ()))
    log.know(_run("alone0", 0, ()), _result(80.0))
    run = _run("a0", 0)
    log.start_run(run)
    log.end_run(run, _result(81.5))
    _, found = read()
    assert found["a0"].data.metrics["result/gain"] == 1.5


def test_a_removed_spool_does_not_stop_a_resumed_sweep(store):
    log, read = store
    log.start()
    log.know(_run("a0", 0), _result(81.5))
    log.know(_run("alone0", 0, ()), _result(80.0))
    _, found = read()
    assert list(found) == ["sweep"]


def test_failed_and_stopped_runs_say_so_and_gain_nothing(store):
    log, read = store
    log.start()
    for run, result in (
        (_run("alone0", 0, ()), _result(80.0)),
        (_run("a0", 0), {"status": "failed", "reason": "attention is not finite at step 3", "validation": None}),
        (_run("b0", 0), _result(70.0, "stopped")),
    ):
        log.start_run(run)
        log.end_run(run, result)
    _, found = read()
    assert found["a0"].info.status == "FAILED"
    assert found["a0"].data.tags["reason"] == "attention is not finite at step 3"
    assert found["b0"].info.status == "KILLED"
    assert found["b0"].data.tags["status"] == "stopped"
    assert "result/gain" not in found["b0"].data.metrics | found["a0"].data.metrics


def test_single_run_has_no_parent_and_a_teacher_is_a_run(store):
    log, read = store
    log.start_teacher("teacher", "teacher ResNet20", seed=0, config={"train": {"epochs": 20}})
    log.epoch("teacher", {"epoch": 1, "val/accuracy": 90.0})
    log.end_teacher("teacher", _result(92.0))
    log.start_run(_run("a0", 0))
    _, found = read()
    assert "mlflow.parentRunId" not in found["a0"].data.tags
    assert found["teacher"].data.tags["kind"] == "teacher"
    assert found["teacher"].data.metrics["result/accuracy"] == 92.0
    assert found["teacher"].data.params["train.epochs"] == "20"
