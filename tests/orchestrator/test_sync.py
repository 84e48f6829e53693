from __future__ import annotations

import pytest
from empty_store import copy_empty_store
from mlflow.tracking import MlflowClient

from orchestrator.sync import sync
from orchestrator.tracking.target import Target, spool_directory
from orchestrator.tracking.tracker import Tracker


@pytest.fixture(scope="module")
def storage(tmp_path_factory):
    storage = tmp_path_factory.mktemp("outputs")
    copy_empty_store(storage / "mlflow.db")
    return storage


def _record(storage, name, uri=None):
    tracker = Tracker(spool_directory(storage, name), target=Target.beside(storage, name, uri), mirror=False)
    tracker.start_run("a1", "run")
    tracker.metrics("a1", {"loss": 1.0}, step=1)
    return tracker


def test_sync_sends_once_and_says_what(storage, capsys):
    _record(storage, "digits").close()
    _record(storage, "fashion").close()
    uri = Target.beside(storage, "digits").tracking_uri
    assert sync(storage) == 0
    assert capsys.readouterr().out.splitlines() == [
        f"{name}: sent 2 operations to {uri}; MLflow has everything" for name in ("digits", "fashion")
    ]
    assert sync(storage, "digits") == 0
    assert "sent 0 operations" in capsys.readouterr().out
    client = MlflowClient(uri)
    (run,) = client.search_runs([client.get_experiment_by_name("digits").experiment_id])
    # Its process ended without ending it.
    assert (run.info.status, run.data.metrics) == ("KILLED", {"loss": 1.0})


def test_run_of_a_living_sweep_stays_running(storage):
    with _record(storage, "alive"):
        assert sync(storage, "alive") == 0
        client = MlflowClient(Target.beside(storage, "alive").tracking_uri)
        (run,) = client.search_runs([client.get_experiment_by_name("alive").experiment_id])
        assert run.info.status == "RUNNING"


def test_broken_server_is_said_and_another_can_be_named(tmp_path, storage, capsys, monkeypatch):
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    _record(tmp_path, "digits", "http://127.0.0.1:9").close()
    assert sync(tmp_path, "digits") == 1
    assert "2 operations wait" in capsys.readouterr().out
    # The store of the other tests: the name of the experiment is free in it.
    _record(tmp_path, "elsewhere", "http://127.0.0.1:9").close()
    assert sync(tmp_path, "elsewhere", tracking_uri=Target.beside(storage, "x").tracking_uri) == 0
    assert "MLflow has everything" in capsys.readouterr().out


def test_unknown_name_gets_the_nearest(storage):
    _record(storage, "digits").close()
    with pytest.raises(ValueError, match=r"no experiment 'digit' was recorded .* did you mean 'digits'\?"):
        sync(storage, "digit")


def test_empty_storage(tmp_path, capsys):
    assert sync(tmp_path) == 0
    assert "Nothing was recorded" in capsys.readouterr().out
