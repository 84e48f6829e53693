from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from empty_store import copy_empty_store

from orchestrator.tracking.mirror_process import MLFLOW_SETTINGS
from orchestrator.tracking.target import Target


@pytest.fixture(autouse=True)
def quick_to_fail(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in MLFLOW_SETTINGS.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")


@pytest.fixture
def storage(tmp_path: Path) -> Path:
    """A folder of outputs with an empty store."""
    copy_empty_store(tmp_path / "mlflow.db")
    return tmp_path


@pytest.fixture
def target(storage: Path) -> Target:
    return Target.beside(storage, "digits")


@pytest.fixture
def unused_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@pytest.fixture
def hanging_port() -> Iterator[int]:
    """A server that accepts and never answers."""
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen(64)
        yield server.getsockname()[1]


@pytest.fixture
def failing_port() -> Iterator[int]:
    """A server that answers everything with 500."""

    class Fails(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_error(500)

        do_POST = do_GET

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Fails)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield server.server_address[1]
    server.shutdown()
    server.server_close()
    thread.join()
