"""The mirror's process: ``python -m orchestrator.tracking.follow DIRECTORY``, started by :class:`MirrorProcess`.

It reads the spool as it grows. Its standard input is the line to its parent: the word ``close`` means that the sweep
ended in order, an end without it that the sweep's process died.
"""

from __future__ import annotations

import logging
import os
import select
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from orchestrator.tracking.file_lock import FileLock
from orchestrator.tracking.outage_error import OutageError

if TYPE_CHECKING:
    from orchestrator.tracking.mirror import Mirror

logger = logging.getLogger(__name__)

_POLL_SECONDS = 0.5
_LONGEST_PAUSE_SECONDS = 60.0
_ORPHAN_SECONDS = 30.0  # how long the mirror of a dead sweep goes on trying
_NICENESS = 5  # where cores are few, training goes first


def main(directory: Path) -> int:
    """Send a spool's operations until its sweep ends; return 0 when MLflow has everything."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    logging.getLogger("alembic").setLevel(logging.WARNING)
    os.nice(_NICENESS)
    from orchestrator.tracking.mirror import Mirror  # imports mlflow: two seconds

    lock = FileLock(directory / "mirror.lock")
    while not lock.acquire():  # a `distillery sync` is at work
        if _parent(_POLL_SECONDS) != "lives":
            return 1
    return _follow(Mirror(directory))


def _follow(mirror: Mirror) -> int:
    pause = _POLL_SECONDS
    parent: Parent = "lives"
    deadline = float("inf")
    while True:
        if parent == "lives":
            parent = _parent(pause)
            deadline = time.monotonic() + _ORPHAN_SECONDS
        else:
            time.sleep(_POLL_SECONDS)
        try:
            # What the parent wrote before it closed is in the file by now: this pass sends all of it.
            mirror.send()
            if parent != "lives":
                mirror.kill_open_runs()
        except OutageError as error:
            logger.warning("MLflow: %s", error)
            pause = min(max(1.0, 2 * pause), _LONGEST_PAUSE_SECONDS)
            if parent == "closed" or time.monotonic() > deadline:
                return 1
        else:
            pause = _POLL_SECONDS
            if parent != "lives":
                return 0


Parent = Literal["lives", "closed", "died"]


def _parent(timeout_seconds: float) -> Parent:
    """Wait for word from the parent, at most ``timeout_seconds``."""
    readable, _, _ = select.select([0], [], [], timeout_seconds)
    if not readable:
        return "lives"
    return "closed" if os.read(0, 16) else "died"


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
