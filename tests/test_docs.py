"""What the documents say of the classes is read off the classes."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

from distill import paths

DOCS = Path(__file__).parents[1] / "docs"


@pytest.mark.parametrize(
    ("generator", "document"), [("path_table", "paths.md"), ("aggregator_table", "aggregators.md")]
)
def test_the_tables_are_what_the_classes_say(generator, document, monkeypatch):
    monkeypatch.syspath_prepend(str(DOCS))
    spec = importlib.util.spec_from_file_location(generator, DOCS / f"{generator}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert (DOCS / document).read_text() == module.document(), f"run python docs/{generator}.py --write"


def test_the_readme_counts_the_paths():
    readme = (DOCS.parent / "README.md").read_text()
    number = len(paths.__all__)
    assert f"`distillery ls paths` lists {number} paths" in readme
    assert f"paths/            {number} of them" in readme
