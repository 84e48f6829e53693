"""Ctrl-C and SIGTERM during a sweep."""

from __future__ import annotations

import signal
import threading
from types import FrameType, TracebackType
from typing import Any, Self

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Interrupts:
    """Turns the first interrupt into Tune's own orderly end; the second one acts as if this class weren't there.

    Tune ends in order on SIGUSR1 (and, unless told otherwise, on SIGINT, but then nobody can tell an interrupted sweep
    from a finished one). ``ray job stop`` and clusters that reclaim a node send SIGTERM.
    """

    def __init__(self) -> None:
        self.happened = False
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            self._before = {number: signal.getsignal(number) for number in (*SIGNALS, signal.SIGUSR1)}
            for number in SIGNALS:
                signal.signal(number, self._interrupt)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._put_back()

    def _interrupt(self, number: int, frame: FrameType | None) -> None:
        self.happened = True
        usual = signal.getsignal(signal.SIGUSR1)
        if callable(usual):
            usual(signal.SIGUSR1, frame)
        self._put_back()  # last: Tune's handler puts back for SIGINT what it has found, which is this one

    def _put_back(self) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before = {}
