"""Why a run failed, in one line."""

from __future__ import annotations

import sys
from collections.abc import Mapping

MOST_CHARACTERS = 300

AFTERMATH = ("gloo", "nccl", "connection reset", "connection closed", "broken pipe", "health check")
"""What the other workers say when one of them has died."""


def failure_reason(error: BaseException) -> str:
    """Return the first line of what went wrong at the bottom of Ray's wrappings, with the kind of error before it.

    Where Ray was not imported, nothing is wrapped: Ray need not be installed.
    """
    wrapped = _inside(error) if sys.modules.get("ray") is not None else None
    if wrapped is not None:
        return wrapped if isinstance(wrapped, str) else failure_reason(wrapped)
    text = " ".join(_own_line(str(error)).split())
    kind = type(error).__name__
    line = f"{kind}: {text}" if text and not text.startswith(f"{kind}:") else text or kind
    return line if len(line) <= MOST_CHARACTERS else f"{line[: MOST_CHARACTERS - 1]}…"


def _inside(error: BaseException) -> BaseException | str | None:
    """Return what one of Ray's errors wraps, or says; ``None`` for any other error."""
    from ray.exceptions import RayActorError, RayTaskError
    from ray.train import ControllerError, WorkerGroupError

    if isinstance(error, WorkerGroupError) and error.worker_failures:
        return _first_cause(error.worker_failures)
    if isinstance(error, ControllerError):
        return error.controller_failure
    if isinstance(error, RayTaskError) and error.cause is not None:
        cause: BaseException = error.cause
        return cause
    if isinstance(error, RayActorError):
        return "the worker's process died (killed, out of memory, or its node was lost)"
    if type(error).__name__ == "StartTraceback":
        return error.__cause__
    return None


def _own_line(text: str) -> str:
    """Return the line that says it: the first one, or the last of a traceback."""
    lines = [line for line in text.strip().splitlines() if line.strip()]
    if not lines:
        return ""
    return lines[-1] if "Traceback (most recent call last)" in text else lines[0]


def _first_cause(failures: Mapping[int, BaseException]) -> BaseException:
    """Return the failure of the rank that failed by itself, the lowest if there are several."""

    def is_aftermath(error: BaseException) -> bool:
        text = str(error).lower()
        return any(word in text for word in AFTERMATH)

    ranks = sorted(failures, key=lambda rank: (is_aftermath(failures[rank]), rank))
    return failures[ranks[0]]
