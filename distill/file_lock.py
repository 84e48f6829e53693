"""Locks between processes that the system releases when their owner dies."""

from __future__ import annotations

import fcntl
import logging

log = logging.getLogger(__name__)


def try_lock(descriptor: int, *, shared: bool = False) -> bool:
    """Lock an open file (``flock``) without waiting, until it is closed or its process ends.

    Args:
        descriptor: of the file.
        shared: whether others may lock it likewise.

    Returns:
        ``False`` where another process holds it; ``True`` also on a file system that has no locks, with a warning.
    """
    try:
        fcntl.flock(descriptor, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        log.warning("this file system has no locks (%s): make sure that one process alone writes here", error)
    return True
