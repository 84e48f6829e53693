"""What the documents say of the classes is read off the classes."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

from distill import paths

DOCS = Path(__file__).parents[1] / "docs"


@pytest.mark.parametrize(
    ("generator", "document"),
    [("path_table", "paths.md"), ("path_tasks", "paths.md"), ("aggregator_table", "aggregators.md")],
)
def test_the_tables_are_what_the_classes_say(generator, document, monkeypatch):
    monkeypatch.syspath_prepend(str(DOCS))
    spec = importlib.util.spec_from_file_location(generator, DOCS / f"{generator}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert (DOCS / document).read_text() == module.document(), f"run python docs/{generator}.py --write"


@pytest.fixture
def experiments(monkeypatch):
    """The module that makes the tables of what aggregators reached, on arms of one's own."""
    monkeypatch.syspath_prepend(str(DOCS))
    module = importlib.import_module("aggregator_experiments")

    def harm(*arms):
        monkeypatch.setattr(module, "_read", lambda name: {"arms": list(arms), "against": "equal/a"})
        return module.harm()

    return harm


def arm(aggregator, *paths, low=None, is_reference=False):
    return {
        "arm": f"{aggregator}/{'+'.join(paths)}",
        "aggregator": aggregator,
        "paths": list(paths),
        "is_alone": False,
        "is_reference": is_reference,
        "over_reference": None if low is None else {"low": low},
        "mean": 80.0,
        "sd": 1.0,
    }


def test_what_was_not_compared_is_no_zero(experiments):
    reference = arm("equal", "a", is_reference=True)
    assert "| FAMO | 80.00 ± 1.00 |  |  | +0.50 |" in experiments(reference, arm("famo", "a", low=0.5))
    with pytest.raises(ValueError, match="famo/a: its difference to the reference cannot be told"):
        experiments(reference, arm("famo", "a"))


def test_two_arms_in_one_place_of_the_table_are_an_error(experiments):
    reference = arm("equal", "a", is_reference=True)
    with pytest.raises(ValueError, match=r"famo/a and famo/b have one place in the table: FAMO, none"):
        experiments(reference, arm("famo", "a", low=0.5), arm("famo", "b", low=0.5))


def test_the_readme_counts_the_paths():
    readme = (DOCS.parent / "README.md").read_text()
    number = len(paths.__all__)
    assert f"`distillery ls paths` lists {number} paths" in readme
    assert f"paths/            {number} of them" in readme
