"""Durations as people write them."""

from __future__ import annotations


def duration(seconds: float) -> str:
    """Return ``6 s``, ``1.8 min`` or ``2.5 h``."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.1f} min" if seconds < 90 * 60 else f"{seconds / 3600:.1f} h"
