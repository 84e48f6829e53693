"""Who holds a lock, in a way that survives recycled process ids."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import time
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Self

LEASE_SECONDS = 60.0
"""After this long without a heartbeat, a holder on another machine is taken for dead."""


@dataclass(frozen=True)
class LockHolder:
    """A process that holds a lock.

    Attributes:
        host: name of its machine, for people.
        machine: identity of the running kernel: another boot or another machine has another one.
        pid: its process id.
        process_start: when the process started, as the kernel tells it: a recycled id has another start.
        started: when the lock was taken, in UTC.
        command: what it is doing.
        heartbeat: when it last showed life, in seconds since 1970 by the clock of whoever wrote it.
    """

    host: str
    machine: str
    pid: int
    process_start: str
    started: str
    command: str
    heartbeat: float

    @classmethod
    def me(cls, command: str) -> Self:
        """Return this process as a holder."""
        return cls(
            host=platform.node(),
            machine=_machine(),
            pid=os.getpid(),
            process_start=_process_start(os.getpid()) or "",
            started=datetime.now(UTC).isoformat(timespec="seconds"),
            command=command,
            heartbeat=time.time(),
        )

    @classmethod
    def parse(cls, text: str) -> Self | None:
        """Return the holder that ``text`` describes, or None where it describes none."""
        try:
            data = json.loads(text)
            return cls(**{name: data[name] for name in cls.__dataclass_fields__})
        except (ValueError, KeyError, TypeError):
            return None

    @classmethod
    def read(cls, path: Path) -> Self | None:
        """Return the holder noted in ``path``, whose time of change is its heartbeat, or None where there is none."""
        try:
            holder = cls.parse(path.read_text())
            return holder and replace(holder, heartbeat=path.stat().st_mtime)
        except FileNotFoundError:
            return None

    def to_dict(self) -> dict[str, Any]:
        """Return plain data."""
        return asdict(self)

    def is_here(self) -> bool:
        """Whether the holder runs, or ran, on this very machine since it was last booted."""
        return self.machine == _machine()

    def is_alive(self) -> bool:
        """Whether the holder still runs: known on this machine, judged by its heartbeat on another."""
        if self.is_here():
            return bool(self.process_start) and _process_start(self.pid) == self.process_start
        if self.host == platform.node():
            return False  # this machine, before it was booted again
        return time.time() - self.heartbeat < LEASE_SECONDS

    def describe(self) -> str:
        """Return who and what this is, for a message."""
        text = f"process {self.pid} on {self.host}, since {self.started} ({self.command})"
        if self.is_here():
            return text
        age = max(0, round(time.time() - self.heartbeat))
        return f"{text}; its last sign of life was {age} s ago, and after {LEASE_SECONDS:.0f} s it is taken for dead"


def _machine() -> str:
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return platform.node()


def _process_start(pid: int) -> str | None:
    """Return when a process started, or None where there is no such process."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except FileNotFoundError:
        return None if Path("/proc/self").exists() else _process_start_by_ps(pid)
    # The command stands in brackets and may hold anything; the start time is the 22nd field, the 20th after it.
    return stat.rpartition(")")[2].split()[19]


def _process_start_by_ps(pid: int) -> str | None:
    """Ask ``ps``, which every system without ``/proc`` has."""
    command = ["ps", "-o", "lstart=", "-p", str(pid)]
    output = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603 - no shell, fixed words
    return output.stdout.strip() or None
