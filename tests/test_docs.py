"""What the documents say of the classes is read off the classes."""

from __future__ import annotations

import importlib.util
from pathlib import Path

from distill import paths

DOCS = Path(__file__).parents[1] / "docs"


def test_the_table_of_paths_is_what_the_classes_say():
    spec = importlib.util.spec_from_file_location("path_table", DOCS / "path_table.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert (DOCS / "paths.md").read_text() == module.document(), "run python docs/path_table.py --write"


def test_the_readme_counts_the_paths():
    readme = (DOCS.parent / "README.md").read_text()
    number = len(paths.__all__)
    assert f"`distillery ls paths` lists {number} paths" in readme
    assert f"paths/            {number} of them" in readme
