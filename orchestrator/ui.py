"""``distillery ui``: MLflow's UI on this machine, opened where the answer is."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.parse
import urllib.request
from collections.abc import Iterator
from pathlib import Path

from orchestrator.shared_view import ARMS_VIEW, view_link
from orchestrator.tracking.front_door import PATH
from orchestrator.tracking.mirror_process import own_environment
from orchestrator.tracking.target import Target, spool_directory

LOOPBACK = "127.0.0.1"
_START_SECONDS = 90.0
_NUM_PORTS = 50


def serve(
    experiment_name: str | None,
    *,
    storage: Path,
    tracking_uri: str | None = None,
    port: int = 5000,
    host: str = LOOPBACK,
) -> int:
    """Run MLflow's UI until Ctrl-C and print the link that opens the arranged view of an experiment.

    A tracking server that runs elsewhere is not started: its link is printed.

    Args:
        experiment_name: the sweep or run to show; ``None``: the one in ``storage`` that was written last.
        storage: the folder of outputs.
        tracking_uri: ``run.tracking_uri`` of the experiment file; default: where the experiment was recorded to.
        port: where to listen; when it is taken, the next free one.
        host: the address to listen on. The UI has no login, so that anything but loopback opens it to the network.

    Returns:
        The exit status: 0, or 1 when the server ended by itself.

    Raises:
        ValueError: no such experiment in ``storage``, or no free port.
    """
    target = find_target(storage, experiment_name, tracking_uri)
    if target.is_server:
        _print_server_links(target)
        return 0
    free = _free_port(host, port)
    if free != port:
        print(f"Port {port} is taken; using {free}.")
    if host not in (LOOPBACK, "localhost", "::1"):
        print(f"Anyone who reaches {host} can read and delete these runs: MLflow's UI has no login.")
    server = _start(target, storage.expanduser().absolute(), host, free)
    try:
        with _terminate_as_interrupt():
            url = f"http://{host}:{free}"
            if not _wait_until_it_answers(url, server):
                print(f"The MLflow server did not start; see {_log_file(storage)}", file=sys.stderr)
                return 1
            _print_own_links(url, target.experiment_name)
            print("Press Ctrl-C to end.", flush=True)
            status = server.wait()
            print(f"The MLflow server ended with status {status}; see {_log_file(storage)}", file=sys.stderr)
            return 1
    except KeyboardInterrupt:
        return 0
    finally:
        _end(server)


def find_target(storage: Path, experiment_name: str | None, tracking_uri: str | None = None) -> Target:
    """Return where an experiment was recorded to.

    Raises:
        ValueError: no such experiment in ``storage``.
    """
    recorded = sorted(storage.expanduser().glob("*/tracking/target.json"), key=lambda file: file.stat().st_mtime)
    names = [file.parents[1].name for file in recorded]
    if experiment_name is None:
        if not names:
            raise ValueError(f"no experiment was recorded in {storage}; run one first: distillery sweep FILE")
        experiment_name = names[-1]
    if experiment_name not in names:
        known = ", ".join(sorted(names)) or "nothing"
        raise ValueError(f"no experiment {experiment_name!r} was recorded in {storage}; found {known}")
    if tracking_uri is not None:
        return Target.beside(storage, experiment_name, tracking_uri)
    return Target.load(spool_directory(storage, experiment_name))


def _start(target: Target, storage: Path, host: str, port: int) -> subprocess.Popen[bytes]:
    artifacts = (storage / "mlartifacts").as_uri()
    command = [
        sys.executable,
        "-m",
        "orchestrator.tracking.front_door",
        target.tracking_uri,
        artifacts,
        host,
        str(port),
    ]
    # Without its job service the server takes 350 MB instead of 830.
    environment = own_environment() | {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
    with _log_file(storage).open("wb") as log:
        # A session of its own, so that ending its process group ends the server, its children and nobody else.
        return subprocess.Popen(  # noqa: S603  (no shell; the values are our own)
            command, stdin=subprocess.PIPE, stdout=log, stderr=log, env=environment, start_new_session=True
        )


def _log_file(storage: Path) -> Path:
    return storage.expanduser().absolute() / "mlflow-ui.log"


def _end(server: subprocess.Popen[bytes]) -> None:
    for number, seconds in ((signal.SIGTERM, 5.0), (signal.SIGKILL, 5.0)):
        # The group outlives the server where a worker of it does.
        with contextlib.suppress(ProcessLookupError):
            os.killpg(server.pid, number)
        with contextlib.suppress(subprocess.TimeoutExpired):
            server.wait(seconds)


@contextlib.contextmanager
def _terminate_as_interrupt() -> Iterator[None]:
    """Treat SIGTERM like Ctrl-C, so that the server ends with us."""
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _free_port(host: str, port: int) -> int:
    for candidate in range(port, port + _NUM_PORTS):
        with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            with contextlib.suppress(OSError):
                probe.bind((host, candidate))
                return candidate
    raise ValueError(f"--port: needs a free port; {port} to {port + _NUM_PORTS - 1} are taken on {host}")


def _wait_until_it_answers(url: str, server: subprocess.Popen[bytes]) -> bool:
    deadline = time.monotonic() + _START_SECONDS
    while server.poll() is None and time.monotonic() < deadline:
        try:
            with urllib.request.urlopen(f"{url}/health", timeout=2):  # noqa: S310  (http on loopback)
                return True
        except OSError:
            time.sleep(0.2)
    return False


def _print_server_links(target: Target) -> None:
    experiment_id = _experiment_id(target.tracking_uri, target.experiment_name)
    if experiment_id is not None:
        print(f"{target.experiment_name}: {view_link(target.tracking_uri, experiment_id)}")
        print(f"mean over seeds: {view_link(target.tracking_uri, experiment_id, key=ARMS_VIEW)}", flush=True)


def _print_own_links(url: str, experiment_name: str) -> None:
    if _experiment_id(url, experiment_name) is not None:
        link = f"{url}{PATH}/{urllib.parse.quote(experiment_name, safe='')}"
        print(f"{experiment_name}: {link}")
        print(f"mean over seeds: {link}/arms", flush=True)


def _experiment_id(url: str, experiment_name: str) -> str | None:
    query = urllib.parse.urlencode({"experiment_name": experiment_name})
    try:
        with urllib.request.urlopen(  # noqa: S310  (the user's own tracking server)
            f"{url}/api/2.0/mlflow/experiments/get-by-name?{query}", timeout=10
        ) as answer:
            return str(json.load(answer)["experiment"]["experiment_id"])
    except (OSError, ValueError, KeyError) as error:
        print(f"{url} does not show {experiment_name!r} ({error}); send it with: distillery sync {experiment_name}")
        return None
