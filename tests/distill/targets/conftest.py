from __future__ import annotations

from pathlib import Path

import pytest
from target_scene import Scene, make_scene


@pytest.fixture
def scene(tmp_path: Path) -> Scene:
    return make_scene(tmp_path / "targets")
