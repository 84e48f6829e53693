"""Someone else is at work here."""

from __future__ import annotations

from orchestrator.lock_holder import LockHolder


class LockHeldError(ValueError):
    """The folder of a run or sweep is locked by another driver, which the message names.

    Args:
        location: path or URI of the folder.
        holder: who has the lock, where that is known.
    """

    def __init__(self, location: str, holder: LockHolder | None) -> None:
        who = holder.describe() if holder is not None else "another process"
        super().__init__(
            f"{location} is in use by {who}; wait for it, or stop it and continue its work with --resume, "
            "or choose another name"
        )
        self.holder = holder
