"""The process that brings a spool to MLflow while its sweep goes on."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import time
from pathlib import Path

from orchestrator.tracking.cursor import Cursor
from orchestrator.tracking.target import Target

# Quick failures: the spool keeps everything, so that a store that does not answer need not be waited for. Settings of
# the user's own environment win.
MLFLOW_SETTINGS = {
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "10",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
    "MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR": "1",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    "MLFLOW_DISABLE_TELEMETRY": "true",
}
LOG_FILE_NAME = "mirror.log"
_STARTING_SECONDS = 30.0  # importing mlflow takes 2 seconds, on a busy machine many more


def own_environment() -> dict[str, str]:
    """Return the environment for a child process that talks to MLflow and finds this package wherever it lies."""
    root = str(Path(__file__).resolve().parents[2])
    search_path = os.pathsep.join(filter(None, [root, os.environ.get("PYTHONPATH")]))
    return {**MLFLOW_SETTINGS, **os.environ, "PYTHONPATH": search_path}


class MirrorProcess:
    """A child process that sends a spool's operations as they come, and ends when this process ends.

    Args:
        directory: the spool's folder; the child's own messages go to ``mirror.log`` in it.
        target: where the child sends to, as saved in that folder.

    Raises:
        OSError: the process cannot be started.
    """

    def __init__(self, directory: Path, target: Target) -> None:
        self._directory = directory
        self._target = target
        with (directory / LOG_FILE_NAME).open("ab") as log:
            # A session of its own: Ctrl-C is for the sweep, which then tells the mirror to finish.
            self._process = subprocess.Popen(  # noqa: S603  (our own module, no shell)
                [sys.executable, "-m", "orchestrator.tracking.follow", str(directory)],
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
                env=own_environment(),
                start_new_session=True,
            )

    @property
    def pid(self) -> int:
        """The child's process id."""
        return self._process.pid

    def finish(self, timeout_seconds: float) -> None:
        """Let the child send what is left; end it when it makes no progress for ``timeout_seconds``."""
        if self._process.stdin is not None:
            # The child may have ended already.
            with contextlib.suppress(OSError):
                self._process.stdin.write(b"close\n")
                self._process.stdin.close()
        last_progress = time.monotonic()
        seen = self._cursor()
        while self._process.poll() is None:
            now = self._cursor()
            if now != seen:
                seen, last_progress = now, time.monotonic()
            allowed = timeout_seconds if seen.mirror_pid == self.pid else max(timeout_seconds, _STARTING_SECONDS)
            if time.monotonic() - last_progress > allowed:
                self._end()
            time.sleep(0.05)

    def _cursor(self) -> Cursor:
        return Cursor.load(self._directory, self._target)

    def _end(self) -> None:
        self._process.terminate()
        try:
            self._process.wait(2.0)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
