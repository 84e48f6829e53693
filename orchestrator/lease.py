"""The lock of a folder that no kernel guards: a file that its holder keeps fresh."""

from __future__ import annotations

import json
import logging
import signal
import threading
import time
import uuid
from types import TracebackType
from typing import Any, Self

from orchestrator.lock_held_error import LockHeldError
from orchestrator.lock_holder import LockHolder

logger = logging.getLogger(__name__)

LEASE = "lease.json"


class Lease:
    """The right to work in a folder behind a URI, as long as its file is renewed.

    Object stores have no "create unless it exists" that works everywhere, so whoever wants the lease writes its mark,
    waits until the writes of others must have arrived, and has won if the mark is still its own. A lease of a dead
    process of this machine is taken over at once; one of another machine when its heartbeat is old *and* doesn't move
    while we watch, so that a wrong clock takes nothing away.

    Args:
        location: URI of the folder, as ``Storage`` takes it.
        command: what the holder is doing, shown to whoever comes second.
        heartbeat_seconds: how often the lease is renewed.
        settle_seconds: how long competing writes may take to arrive.
        watch_seconds: how long an old lease is watched; it must exceed ``heartbeat_seconds``.
    """

    def __init__(
        self,
        location: str,
        *,
        command: str,
        heartbeat_seconds: float = 10.0,
        settle_seconds: float = 1.0,
        watch_seconds: float = 25.0,
    ) -> None:
        from orchestrator.storage import Storage  # pyarrow is not imported for a lock on a disk

        self._storage = Storage(location)
        self._command = command
        self._heartbeat_seconds = heartbeat_seconds
        self._settle_seconds = settle_seconds
        self._watch_seconds = watch_seconds
        self._mark = uuid.uuid4().hex
        self._started: str | None = None
        self._ended = threading.Event()
        self._writing = threading.Lock()

    def __enter__(self) -> Self:
        """Take the lease.

        Raises:
            LockHeldError: someone else has it.
        """
        self._refuse_living(self._read())
        self._write()
        time.sleep(self._settle_seconds)
        found = self._read()
        if found.get("mark") != self._mark:
            raise LockHeldError(self._storage.uri, _holder(found))
        threading.Thread(target=self._beat, name="lease heartbeat", daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._writing:
            self._ended.set()
            if self._read().get("mark") == self._mark:
                self._storage.remove(LEASE)

    def _read(self) -> dict[str, Any]:
        try:
            data = json.loads(self._storage.read_text(LEASE))
        except (FileNotFoundError, ValueError):
            return {}
        return data if isinstance(data, dict) else {}

    def _write(self) -> None:
        holder = LockHolder.me(self._command).to_dict()
        self._started = self._started or holder["started"]
        text = json.dumps({**holder, "started": self._started, "mark": self._mark})
        self._storage.write_text(LEASE, text)

    def _refuse_living(self, found: dict[str, Any]) -> None:
        holder = _holder(found)
        if holder is None:
            return
        if holder.is_alive():
            raise LockHeldError(self._storage.uri, holder)
        if holder.is_here():
            return
        deadline = time.monotonic() + self._watch_seconds
        while time.monotonic() < deadline:
            time.sleep(min(1.0, self._watch_seconds))
            now = self._read()
            if now != found:
                raise LockHeldError(self._storage.uri, _holder(now))

    def _beat(self) -> None:
        while not self._ended.wait(self._heartbeat_seconds):
            with self._writing:
                if self._ended.is_set():
                    return
                found = self._read()
                if found.get("mark") not in (None, self._mark):
                    self._lose(_holder(found))
                    return
                self._write()

    def _lose(self, holder: LockHolder | None) -> None:
        """Two drivers on one sweep would spoil it: the one that was taken for dead ends as if interrupted."""
        who = holder.describe() if holder is not None else "another process"
        logger.error("%s was taken over by %s while this process seemed dead; ending", self._storage.uri, who)
        signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)


def _holder(data: dict[str, Any]) -> LockHolder | None:
    return LockHolder.parse(json.dumps(data)) if data else None
