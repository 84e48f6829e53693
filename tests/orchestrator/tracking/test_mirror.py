"""The mirror against a real SQLite store that is read back with MLflow's own client."""

from __future__ import annotations

import contextlib
import json

import pytest
from empty_store import copy_empty_store
from mlflow.entities import ViewType
from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient

from orchestrator.tracking.mirror import Mirror
from orchestrator.tracking.outage_error import OutageError
from orchestrator.tracking.store import Store
from orchestrator.tracking.target import Target, spool_directory
from orchestrator.tracking.tracker import Tracker

START = 1_700_000_000_000


@pytest.fixture
def directory(storage):
    return spool_directory(storage, "digits")


@pytest.fixture
def tracker(directory, target):
    tracker = Tracker(directory, target=target, mirror=False)
    yield tracker
    tracker.close()


@pytest.fixture
def client(target):
    return MlflowClient(target.tracking_uri)


def _record_all_kinds(tracker, tmp_path):
    from PIL import Image

    (tmp_path / "digits" / "trajectory.parquet").write_bytes(b"parquet")
    (tmp_path / "elsewhere.txt").write_text("copied")
    Image.new("RGB", (1200, 1200), "white").save(tmp_path / "digits" / "effect.png")
    tracker.start_run("sweep", "sweep digits", tags={"kind": "sweep"}, start_time_ms=START)
    tracker.start_run(
        "a1", "adaptive s0", parent="sweep", tags={"arm": "adaptive"}, params={"lr": "0.1"}, start_time_ms=START + 1
    )
    for epoch in (1, 2, 3):
        tracker.metrics("a1", {"val/accuracy": 80.0 + epoch}, step=epoch, timestamp_ms=START + epoch)
    tracker.results("a1", {"result/accuracy": 83.0})
    tracker.tags("a1", {"status": "finished"})
    tracker.text("a1", "seed: 0\n", "experiment.yaml")
    tracker.artifact("a1", tmp_path / "digits" / "trajectory.parquet", "trajectory")
    tracker.artifact("a1", tmp_path / "elsewhere.txt")
    (tmp_path / "elsewhere.txt").unlink()
    tracker.image("sweep", tmp_path / "digits" / "effect.png", "compare/path_effect")
    tracker.table("sweep", ["arm", "mean"], [["adaptive", 83.0]], "arms.json")
    tracker.dataset("a1", "Digits", "ab" * 32, "train")
    tracker.experiment_tags({"mlflow.note.content": "Helps: attention."})
    tracker.end_run("a1", "FINISHED", end_time_ms=START + 9)
    tracker.end_run("sweep", "FINISHED")


def _everything(client):
    """All that the store holds, as plain data, without MLflow's random ids."""
    (experiment,) = [e for e in client.search_experiments() if e.name == "digits"]
    runs = client.search_runs([experiment.experiment_id], run_view_type=ViewType.ALL, order_by=["start_time"])
    ids = {run.info.run_id: run.data.tags["distillery.run"] for run in runs}

    def files(run_id, path=None):
        entries = client.list_artifacts(run_id, path)
        return [
            name
            for entry in entries
            for name in (files(run_id, entry.path) if entry.is_dir else [(entry.path, entry.file_size)])
        ]

    return {
        "tags": experiment.tags,
        "runs": {
            key: {
                "name": run.info.run_name,
                "status": run.info.status,
                "times": (run.info.start_time, run.info.end_time),
                "params": run.data.params,
                "tags": {k: ids.get(v, v) for k, v in run.data.tags.items()},
                "history": {
                    name: [(m.timestamp, m.step, m.value) for m in client.get_metric_history(run_id, name)]
                    for name in run.data.metrics
                },
                "datasets": [(i.dataset.name, i.dataset.digest, i.tags[0].value) for i in run.inputs.dataset_inputs],
                "files": files(run_id),
            }
            for run, (run_id, key) in zip(runs, ids.items(), strict=True)
        },
    }


def test_everything_arrives_and_a_second_time_adds_nothing(tracker, directory, client, tmp_path):
    _record_all_kinds(tracker, tmp_path)
    assert Mirror(directory).send() == 16
    once = _everything(client)
    run, sweep = once["runs"]["a1"], once["runs"]["sweep"]
    assert once["tags"]["mlflow.note.content"] == "Helps: attention."
    assert run["tags"]["mlflow.parentRunId"] == "sweep"
    assert run["tags"] | {"arm": "adaptive", "status": "finished"} == run["tags"]
    assert run["params"] == {"lr": "0.1"}
    assert run["history"]["val/accuracy"] == [(START + e, e, 80.0 + e) for e in (1, 2, 3)]
    assert [point[1:] for point in run["history"]["result/accuracy"]] == [(0, 83.0)]
    assert run["datasets"] == [("Digits", ("ab" * 32)[:36], "train")]
    assert (run["status"], run["times"]) == ("FINISHED", (START + 1, START + 9))
    assert [name for name, _ in run["files"]] == ["elsewhere.txt", "experiment.yaml", "trajectory/trajectory.parquet"]
    assert sweep["status"] == "FINISHED"
    assert len([name for name, _ in sweep["files"] if name.startswith("images/compare~path_effect+step+0+")]) == 2
    assert sweep["tags"]["mlflow.loggedArtifacts"] == '[{"path": "arms.json", "type": "table"}]'

    assert Mirror(directory).send() == 0
    assert _everything(client) == once
    (directory / "cursor.json").unlink()
    assert Mirror(directory).send() == 16
    assert _everything(client) == once


def test_table_and_picture_are_what_mlflow_reads(tracker, directory, target, client, tmp_path, monkeypatch):
    from PIL import Image

    monkeypatch.setenv("MLFLOW_TRACKING_URI", target.tracking_uri)  # load_table forgets which store its client has
    _record_all_kinds(tracker, tmp_path)
    Mirror(directory).send()
    sweep = tracker.run_id("sweep")
    table = client.load_table(client.get_run(sweep).info.experiment_id, "arms.json", [sweep])
    assert table.to_dict("list") == {"arm": ["adaptive"], "mean": [83.0]}
    (preview,) = [f.path for f in client.list_artifacts(sweep, "images") if f.path.endswith("+compressed.webp")]
    with Image.open(client.download_artifacts(sweep, preview, str(tmp_path))) as image:
        # MLflow's own preview has 256 pixels: no text in it can be read.
        assert image.size == (1000, 1000)


@pytest.mark.parametrize("crash_after", [1, 5, 9])
def test_crash_between_sending_and_the_cursor_repeats_nothing(
    tracker, directory, client, tmp_path, monkeypatch, crash_after
):
    _record_all_kinds(tracker, tmp_path)
    real_advance = Mirror._advance
    num_calls = 0

    def crash(self, *args):
        nonlocal num_calls
        num_calls += 1
        if num_calls == crash_after:
            raise KeyboardInterrupt
        real_advance(self, *args)

    monkeypatch.setattr(Mirror, "_advance", crash)
    with pytest.raises(KeyboardInterrupt):
        Mirror(directory).send()
    monkeypatch.undo()
    Mirror(directory).send()
    content = _everything(client)
    assert list(content["runs"]) == ["sweep", "a1"]
    assert content["runs"]["a1"]["history"]["val/accuracy"] == [(START + e, e, 80.0 + e) for e in (1, 2, 3)]
    assert content["runs"]["a1"]["status"] == "FINISHED"


def test_outage_in_the_middle_loses_no_point(tracker, directory, client, monkeypatch):
    tracker.start_run("a1", "run")
    real_add = Store.add_metrics
    num_calls = 0

    def unreliable(self, run_id, points):
        nonlocal num_calls
        num_calls += 1
        real_add(self, run_id, points)
        if num_calls % 2:
            raise MlflowException("the answer got lost")  # after it was stored: the worst moment

    monkeypatch.setattr(Store, "add_metrics", unreliable)
    mirror = Mirror(directory)
    for step in range(1, 6):
        tracker.metrics("a1", {"loss": float(step)}, step=step)
        with contextlib.suppress(OutageError):
            mirror.send()
        assert mirror.cursor.error == ("the answer got lost" if num_calls % 2 else "")
    mirror.send()
    assert num_calls == 6
    assert mirror.cursor.error == ""
    history = client.get_metric_history(tracker.run_id("a1"), "loss")
    assert [(m.step, m.value) for m in history] == [(s, float(s)) for s in range(1, 6)]


def test_many_points_go_in_batches_that_mlflow_takes(tracker, directory, client, monkeypatch):
    sizes = []
    real_log = MlflowClient.log_batch

    def log_batch(self, run_id, metrics=(), params=(), tags=(), synchronous=None):
        sizes.append((len(metrics), len(params), len(tags)))
        return real_log(self, run_id, metrics=metrics, params=params, tags=tags, synchronous=synchronous)

    monkeypatch.setattr(MlflowClient, "log_batch", log_batch)
    for key in ("a1", "b2"):
        tracker.start_run(
            key, key, params={f"p{i}": "x" * 7000 for i in range(150)}, tags={f"t{i}": "y" for i in range(150)}
        )
    for step in range(1, 41):
        for key in ("a1", "b2"):
            tracker.metrics(key, {f"m{i}": 1.0 * step for i in range(60)}, step=step)
    Mirror(directory).send()
    assert max(n for n, _, _ in sizes) <= 1000
    assert max(n for _, n, _ in sizes) <= 100
    assert max(n for _, _, n in sizes) <= 100
    # 4800 points: about 1000 at once, and not one request for each report.
    assert sum(1 for n, _, _ in sizes if n) <= 12
    run = client.get_run(tracker.run_id("b2"))
    assert len(run.data.metrics) == 60
    assert run.data.metrics["m59"] == 40.0
    assert len(run.data.params) == 150
    assert len(run.data.params["p149"]) == 6000


def test_not_finite_values_become_tags(tracker, directory, client):
    tracker.start_run("a1", "run")
    tracker.metrics("a1", {"loss": float("inf"), "val/accuracy": 10.0}, step=1)
    tracker.results("a1", {"result/accuracy": float("nan")})
    Mirror(directory).send()
    run = client.get_run(tracker.run_id("a1"))
    assert run.data.metrics == {"val/accuracy": 10.0}
    assert run.data.tags["nonfinite.loss"] == "inf at step 1"
    assert run.data.tags["nonfinite.result/accuracy"] == "nan"


def test_names_that_mlflow_refuses_are_made_acceptable(tracker, directory, client):
    tracker.start_run("a1", "run", params={"path.kd+at": "on"})
    tracker.metrics("a1", {"train/loss/kd+at": 1.0}, step=1)
    mirror = Mirror(directory)
    mirror.send()
    assert mirror.num_refused == 0
    run = client.get_run(tracker.run_id("a1"))
    assert run.data.params == {"path.kd_at": "on"}
    assert run.data.metrics == {"train/loss/kd_at": 1.0}


def test_what_mlflow_refuses_is_set_aside_and_the_rest_goes_on(tracker, directory, client, tmp_path, caplog):
    tracker.start_run("a1", "run")
    tracker.artifact("a1", tmp_path / "digits" / "gone.parquet")
    (tmp_path / "digits" / "text.png").write_text("no picture")
    tracker.image("a1", tmp_path / "digits" / "text.png", "compare/x")
    tracker.metrics("a1", {"loss": 1.0}, step=1)
    mirror = Mirror(directory)
    mirror.send()
    assert mirror.num_refused == 2
    assert client.get_run(tracker.run_id("a1")).data.metrics == {"loss": 1.0}
    refused = [json.loads(line) for line in (directory / "refused.jsonl").read_text().splitlines()]
    assert [(r["operation"]["op"], r["reason"].rpartition("/")[2]) for r in refused] == [
        ("artifact", "gone.parquet is gone"),
        ("image", "text.png is no picture"),
    ]
    assert "MLflow refused artifact of run a1" in caplog.text


def test_run_deleted_in_mlflow_stays_deleted(tracker, directory, client):
    tracker.start_run("a1", "run")
    tracker.start_run("b2", "run")
    Mirror(directory).send()
    client.delete_run(tracker.run_id("a1"))
    tracker.metrics("a1", {"loss": 1.0}, step=1)
    tracker.metrics("b2", {"loss": 2.0}, step=1)
    Mirror(directory).send()
    (directory / "cursor.json").unlink()
    Mirror(directory).send()
    experiment = client.get_experiment_by_name("digits").experiment_id
    (run,) = client.search_runs([experiment])
    assert run.data.metrics == {"loss": 2.0}
    assert len(client.search_runs([experiment], run_view_type=ViewType.ALL)) == 2


def test_resumed_run_is_the_same_run_and_repeated_epochs_are_drawn_once(directory, target, client):
    with Tracker(directory, target=target, mirror=False) as tracker:
        tracker.start_run("a1", "run", params={"lr": "0.1"})
        for epoch in (1, 2, 3):
            tracker.metrics("a1", {"val/accuracy": 80.0 + epoch}, step=epoch)
    mirror = Mirror(directory)
    mirror.send()
    assert mirror.kill_open_runs() == 1
    assert client.get_run(mirror.cursor.runs["a1"]).info.status == "KILLED"
    with Tracker(directory, target=target, mirror=False) as tracker:  # resumed from the checkpoint of epoch 2
        tracker.start_run("a1", "run", params={"lr": "0.2", "new": "1"})
        for epoch in (3, 4):
            tracker.metrics("a1", {"val/accuracy": 80.0 + epoch}, step=epoch)
        tracker.results("a1", {"result/gain": 1.0})
        tracker.results("a1", {"result/gain": 1.0})
        tracker.results("a1", {"result/gain": 2.0})
        tracker.end_run("a1", "FINISHED")
    mirror = Mirror(directory)
    mirror.send()
    run = client.get_run(mirror.cursor.runs["a1"])
    assert len(client.search_runs([run.info.experiment_id])) == 1
    assert [m.step for m in client.get_metric_history(run.info.run_id, "val/accuracy")] == [1, 2, 3, 4]
    assert run.data.params == {"lr": "0.1", "new": "1"}  # MLflow never changes a parameter
    assert run.data.metrics["result/gain"] == 2.0
    assert len(client.get_metric_history(run.info.run_id, "result/gain")) == 2
    assert run.info.status == "FINISHED"
    assert mirror.kill_open_runs() == 0


def test_emptied_store_gets_everything_again(tracker, directory, storage):
    tracker.start_run("a1", "run")
    tracker.metrics("a1", {"loss": 1.0}, step=1)
    Mirror(directory).send()
    other = Target.beside(storage, "digits", f"sqlite:///{storage / 'other.db'}")
    copy_empty_store(storage / "other.db")
    mirror = Mirror(directory, other)
    assert mirror.send() == 2
    client = MlflowClient(other.tracking_uri)
    assert client.get_run(mirror.cursor.runs["a1"]).data.metrics == {"loss": 1.0}
    # Emptied by hand, with a cursor that says that all was sent.
    client.rename_experiment(mirror.cursor.experiment_id, "somebody else's")
    again = Mirror(directory, other)
    assert again.send() == 2
    assert again.cursor.experiment_id != mirror.cursor.experiment_id


def test_deleted_experiment_is_an_outage_that_says_what_to_do(tracker, directory, client):
    tracker.start_run("a1", "run")
    mirror = Mirror(directory)
    mirror.send()
    client.delete_experiment(mirror.cursor.experiment_id)
    tracker.metrics("a1", {"loss": 1.0}, step=1)
    with pytest.raises(OutageError, match="mlflow experiments restore -x"):
        Mirror(directory).send()
    client.restore_experiment(mirror.cursor.experiment_id)
    mirror = Mirror(directory)
    mirror.send()
    assert client.get_run(mirror.cursor.runs["a1"]).data.metrics == {"loss": 1.0}


@pytest.mark.parametrize("kind", ["unused_port", "failing_port"])
def test_store_that_does_not_take_it_is_an_outage(tracker, directory, storage, request, kind):
    port = request.getfixturevalue(kind)
    tracker.start_run("a1", "run")
    target = Target.beside(storage, "digits", f"http://127.0.0.1:{port}")
    mirror = Mirror(directory, target)
    with pytest.raises(OutageError):
        mirror.send()
    assert mirror.cursor.offset == 0


def test_torn_cursor_starts_over(tracker, directory, client):
    tracker.start_run("a1", "run")
    Mirror(directory).send()
    (directory / "cursor.json").write_text('{"tracking_uri": "sqlite')
    mirror = Mirror(directory)
    assert mirror.send() == 1
    assert len(client.search_runs([mirror.cursor.experiment_id])) == 1
