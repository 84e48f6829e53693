from __future__ import annotations

import contextlib
import json
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request

import pytest
from empty_store import copy_empty_store

from orchestrator.shared_view import arranged_views, experiment_note
from orchestrator.tracking.mirror import Mirror
from orchestrator.tracking.mirror_process import own_environment
from orchestrator.tracking.target import Target, spool_directory
from orchestrator.tracking.tracker import Tracker
from orchestrator.ui import find_target, serve

DEADLINE_SECONDS = 60.0


@pytest.fixture(scope="module")
def storage(tmp_path_factory):
    storage = tmp_path_factory.mktemp("outputs")
    copy_empty_store(storage / "mlflow.db")
    directory = spool_directory(storage, "my digits")
    with Tracker(directory, target=Target.beside(storage, "my digits"), mirror=False) as tracker:
        tracker.start_run("a1", "run")
        tracker.experiment_tags(arranged_views(["attention"], metric="accuracy"))
        tracker.experiment_tags({"mlflow.note.content": experiment_note("Helps: attention.", "")})
        tracker.end_run("a1", "FINISHED")
    Mirror(directory).send()
    return storage


@contextlib.contextmanager
def _ui(storage, port):
    """A ``distillery ui`` in a process of its own, with what it has printed until it waits for Ctrl-C."""
    call = f"serve(None, storage=pathlib.Path({str(storage)!r}), port={port})"
    script = f"import pathlib, sys; from orchestrator.ui import serve; sys.exit({call})"
    process = subprocess.Popen(
        [sys.executable, "-c", script],
        env=own_environment(),
        stdout=subprocess.PIPE,
        text=True,
        # A shell that starts tests in the background ignores SIGINT for all its children.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    assert process.stdout is not None
    printed = []
    for line in process.stdout:
        printed.append(line.rstrip())
        if "Ctrl-C" in line:
            break
    try:
        yield process, printed
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


def _get(url):
    with urllib.request.urlopen(url, timeout=10) as answer:
        return answer.read().decode()


def _is_listening(port):
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def _wait_until_free(port):
    deadline = time.monotonic() + 15
    while _is_listening(port) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not _is_listening(port), "a server was left behind"


def _port_of(printed):
    (link,) = [line for line in printed if line.startswith("my digits: ")]
    return int(link.partition("127.0.0.1:")[2].partition("/")[0])


def test_opens_the_arranged_view_and_ends_with_ctrl_c(storage):
    with socket.socket() as busy:
        busy.bind(("127.0.0.1", 0))
        busy.listen()
        taken = busy.getsockname()[1]
        with _ui(storage, taken) as (process, printed):
            port = _port_of(printed)
            assert port > taken
            assert printed[0] == f"Port {taken} is taken; using {port}."
            url = f"http://127.0.0.1:{port}"
            assert f"my digits: {url}/distillery/my%20digits" in printed
            page = _get(f"{url}/distillery/my%20digits")
            query = "workflowType=machine_learning&viewStateShareKey=distillery&compareRunsMode=CHART"
            assert f'location.replace("/#/experiments/1/runs?{query}")' in page
            assert 'localStorage.setItem("mlflow.assistant.fab.autoOpenedOnFirstLoad_v1", "true")' in page
            assert "viewStateShareKey=distillery-arms" in _get(f"{url}/distillery/my%20digits/arms")
            assert "compareRunsMode=TABLE" in _get(f"{url}/distillery/my%20digits/table")
            with pytest.raises(urllib.error.HTTPError, match="404"):
                _get(f"{url}/distillery/nothing")
            assert 'id="root"' in _get(url)
            experiment = json.loads(_get(f"{url}/api/2.0/mlflow/experiments/get?experiment_id=1"))["experiment"]
            tags = {tag["key"]: tag["value"] for tag in experiment["tags"]}
            assert tags["mlflow.note.content"].startswith("Helps: attention.")
            request = urllib.request.Request(f"{url}/distillery/my%20digits", headers={"Host": "evil.example.org"})
            with pytest.raises(urllib.error.HTTPError, match="403"):
                _get(request)
            process.send_signal(signal.SIGINT)
            assert process.wait(20) == 0
            _wait_until_free(port)


def test_server_ends_with_its_parent():
    script = (
        "from orchestrator.tracking.front_door import _end_with_parent; print('up', flush=True); _end_with_parent()"
    )
    server = subprocess.Popen(
        [sys.executable, "-c", script], env=own_environment(), stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert server.stdin is not None
    assert server.stdout is not None
    assert server.stdout.readline() == b"up\n"
    assert server.poll() is None
    server.stdin.close()  # what the death of the parent does
    assert server.wait(10) == -signal.SIGTERM
    server.stdout.close()


def test_server_elsewhere_is_linked_and_not_started(tmp_path, capsys):
    tracker = Tracker(
        spool_directory(tmp_path, "digits"),
        target=Target.beside(tmp_path, "digits", "http://127.0.0.1:9"),
        mirror=False,
    )
    tracker.close()
    assert serve("digits", storage=tmp_path) == 0
    assert "distillery sync digits" in capsys.readouterr().out


def test_last_recorded_experiment_is_shown_by_default(storage):
    assert find_target(storage, None).experiment_name == "my digits"


def test_unknown_experiment_names_those_that_exist(storage, tmp_path):
    with pytest.raises(ValueError, match=r"no experiment 'digits' was recorded .* found my digits"):
        find_target(storage, "digits")
    with pytest.raises(ValueError, match="run one first"):
        find_target(tmp_path, None)
