"""One driver a folder: the second one is told who holds it."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import threading
import time
from pathlib import Path
from types import TracebackType
from typing import Self

from orchestrator.lease import Lease
from orchestrator.lock_held_error import LockHeldError
from orchestrator.lock_holder import LockHolder

LOCK = ".lock"
HOLDER = ".lock.json"
HEARTBEAT_SECONDS = 10.0
NAMING_SECONDS = 2.0
"""How long the second driver waits for the first, just started, to write down who it is."""


class Lock:
    """The right to work in a folder of this machine's disks, from ``with`` to its end or to the death of the process.

    ``flock`` decides on one machine: the kernel frees it however its holder ends. Beside it lies a note of who holds
    it, with the boot and start time of the process, for file systems without locks and for other machines; the latter
    believe it as long as its heartbeat is fresh.

    Args:
        folder: the folder of the run or sweep; it is made if missing.
        command: what the holder is doing, shown to whoever comes second.
    """

    def __init__(self, folder: Path, *, command: str) -> None:
        self._folder = folder
        self._command = command
        self._file: int | None = None
        self._ended = threading.Event()

    def __enter__(self) -> Self:
        """Take the lock.

        Raises:
            LockHeldError: someone else has it.
        """
        self._folder.mkdir(parents=True, exist_ok=True)
        self._file = os.open(self._folder / LOCK, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno in (errno.EWOULDBLOCK, errno.EACCES):
                self._refuse(self._living_holder())
            # Otherwise the file system has no locks: the note below has to do.
        holder = LockHolder.read(self._folder / HOLDER)
        if holder is not None and holder.is_alive():
            self._refuse(holder)
        self._note()
        threading.Thread(target=self._beat, name="lock heartbeat", daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ended.set()
        # The note goes before the lock: whoever takes the lock next must not find a living holder in it.
        (self._folder / HOLDER).unlink(missing_ok=True)
        self._close()

    def _living_holder(self) -> LockHolder | None:
        """Return who holds the lock; a note left by a killed holder stands there until the next one has written."""
        deadline = time.monotonic() + NAMING_SECONDS
        while True:
            holder = LockHolder.read(self._folder / HOLDER)
            if (holder is not None and holder.is_alive()) or time.monotonic() > deadline:
                return holder
            time.sleep(0.05)

    def _refuse(self, holder: LockHolder | None) -> None:
        self._close()
        raise LockHeldError(str(self._folder), holder)

    def _close(self) -> None:
        if self._file is not None:
            os.close(self._file)
            self._file = None

    def _note(self) -> None:
        aside = self._folder / f"{HOLDER}.{os.getpid()}.part"
        aside.write_text(json.dumps(LockHolder.me(self._command).to_dict()))
        aside.replace(self._folder / HOLDER)

    def _beat(self) -> None:
        while not self._ended.wait(HEARTBEAT_SECONDS):
            # A folder that vanished under a running driver is the driver's to report, not the lock's.
            with contextlib.suppress(OSError):
                os.utime(self._folder / HOLDER)


def lock(location: str, *, command: str) -> Lock | Lease:
    """Return the lock for a path or URI, to be used in ``with``: a kernel's lock on a disk, a lease elsewhere.

    Args:
        location: folder of the run or sweep, as ``Storage`` takes it.
        command: what the holder is doing, shown to whoever comes second.
    """
    if "://" in location and not location.startswith("file://"):
        return Lease(location, command=command)
    return Lock(Path(location.removeprefix("file://")).expanduser().absolute(), command=command)
