"""Where this machine keeps copies of what lies elsewhere."""

from __future__ import annotations

import os
from pathlib import Path

VARIABLE = "DISTILLERY_CACHE"
DEFAULT = "~/.cache/distillery"


def cache_folder() -> Path:
    """Return the folder that ``DISTILLERY_CACHE`` names, or the default one in the user's home."""
    return Path(os.environ.get(VARIABLE) or DEFAULT).expanduser().absolute()
