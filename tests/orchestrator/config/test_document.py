"""A file that remembers where each key was written."""

from __future__ import annotations

import pytest

from distill.schema import Problem
from orchestrator.config.document import Document
from orchestrator.config.errors import UserError

TEXT = """\
train:
  epochs: 10
  optimizer: {lr: 0.1}
data:
  augment:
    - {padding: 2}
search:
  train.optimizer.lr: {grid: [0.1, 0.2]}
"""


@pytest.fixture
def document():
    return Document.parse(TEXT, "runs/experiment.yaml")


def said(document, *problem):
    return str(document.mistakes([Problem(*problem)])[0])


def test_a_mistake_names_file_line_and_key(document):
    assert said(document, "train.epochs", "is wrong") == "runs/experiment.yaml:2: train.epochs: is wrong"
    assert said(document, "data.augment.0.padding", "x") == "runs/experiment.yaml:6: data.augment.0.padding: x"


def test_a_key_that_is_not_there_has_the_line_of_its_section(document):
    assert said(document, "train.batch", "x").startswith("runs/experiment.yaml:1: train.batch")
    assert said(document, "studnet", "x") == "runs/experiment.yaml: studnet: x"


def test_a_suggestion_shows_the_value_that_the_key_has(document):
    text = said(document, "train.epoch", "unknown key.", "epochs")
    assert text == "runs/experiment.yaml:1: train.epoch: unknown key. Did you mean 'epochs' (now 10)?"


def test_values_from_the_command_line_say_so(document):
    changed = document.with_value("train.epochs", 3)
    assert changed.get("train.epochs") == 3
    assert document.get("train.epochs") == 10
    assert said(changed, "train.epochs", "x") == "command line: train.epochs: x"
    assert said(changed, "train.optimizer", "x").startswith("runs/experiment.yaml:3")


def test_values_from_the_search_say_where_they_stand(document):
    changed = document.with_value("train.optimizer.lr", 0.2, origin="search.train.optimizer.lr.grid.1")
    text = "runs/experiment.yaml:8: search.train.optimizer.lr.grid.1: x"
    assert said(changed, "train.optimizer.lr", "x") == text


def test_names_that_hold_dots_are_found(document):
    assert document.get("search.train.optimizer.lr.grid.1") == 0.2
    assert document.with_value("search.train.optimizer.lr.grid.1", 5).get("search.train.optimizer.lr.grid") == [0.1, 5]


def test_sections_on_the_way_are_made(document):
    assert document.with_value("run.scheduler.use", "ASHA").get("run") == {"scheduler": {"use": "ASHA"}}


@pytest.mark.parametrize("key", ["train.epochs.x", "data.augment.1.padding", "data.augment.first"])
def test_keys_that_lead_nowhere(document, key):
    with pytest.raises(KeyError, match=key.rpartition(".")[0].partition(".1")[0]):
        document.with_value(key, 1)
    assert not document.has(key)


@pytest.mark.parametrize("content", [b"\xff\xfe", None])
def test_files_that_cannot_be_read(tmp_path, content):
    path = tmp_path / "experiment.yaml"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(UserError, match=str(path)):
        Document.load(path)


@pytest.mark.parametrize("text", ["", "- a", "3"])
def test_a_file_is_a_mapping(text):
    with pytest.raises(UserError, match="mapping of sections"):
        Document.parse(text, "x.yaml")


def test_mistakes_for_machines(document):
    plain = document.mistakes([Problem("train.epoch", "x", "epochs")])[0].plain()
    assert plain == {
        "file": "runs/experiment.yaml",
        "line": 1,
        "key": "train.epoch",
        "message": "x",
        "nearest": "epochs",
    }
    typed = document.with_value("seed", 1).mistakes([Problem("seed", "x")])[0].plain()
    assert (typed["file"], typed["line"]) == ("command line", None)
