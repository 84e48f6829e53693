"""``key=value`` on the command line."""

from __future__ import annotations

import pytest

from orchestrator.config.document import Document
from orchestrator.config.errors import UserError
from orchestrator.config.overrides import override

TEXT = "train: {epochs: 10, optimizer: {lr: 0.1}}\ndata: {augment: [{padding: 2}]}\nsearch: {paths: {subsets: all}}\n"


@pytest.fixture
def document():
    return Document.parse(TEXT, "experiment.yaml")


@pytest.mark.parametrize(
    ("setting", "key", "value"),
    [
        ("train.epochs=3", "train.epochs", 3),
        ("train.optimizer.lr=1e-3", "train.optimizer.lr", 0.001),
        ("name=a=b", "name", "a=b"),
        ("train.scheduler=", "train.scheduler", None),
        ("data.augment.0.padding=5", "data.augment.0.padding", 5),
        ("aggregator={use: LogSum}", "aggregator", {"use": "LogSum"}),
        ("search.seed.grid=[0, 1]", "search.seed", {"grid": [0, 1]}),
        (
            "search.train.optimizer.lr.grid=[1]",
            "search",
            {"paths": {"subsets": "all"}, "train.optimizer.lr": {"grid": [1]}},
        ),
        ("search.paths.a.b={grid: [1]}", "search", {"paths": {"subsets": "all"}, "paths.a.b": {"grid": [1]}}),
        ("search.arms.one.paths=[a]", "search.arms", {"one": {"paths": ["a"]}}),
        ("search.paths.subsets=2", "search.paths", {"subsets": 2}),
        ("search=null", "search", None),
        ("train.epochs='3'", "train.epochs", "3"),
    ],
)
def test_values_are_read_as_in_a_file(document, setting, key, value):
    assert override(document, [setting]).get(key) == value


def test_later_ones_win(document):
    assert override(document, ["train.epochs=3", "train.epochs=4"]).get("train.epochs") == 4


def test_all_mistakes_at_once(document):
    settings = [
        "epochs",
        "--lr=3",
        "=3",
        "train.epochs=[1",
        "train.epochs=010",
        "train.epochs.x=1",
        "data.augment.4.p=1",
    ]
    with pytest.raises(UserError) as caught:
        override(document, settings)
    lines = str(caught.value).splitlines()
    assert len(lines) == len(settings)
    assert all(line.startswith("command line: ") for line in lines)
    assert "write key=value" in lines[0]
    assert "write 10" in lines[4]
    assert "train.epochs is 10, not a section" in lines[5]
    assert "a list of 1" in lines[6]


def test_nothing_is_evaluated(document):
    assert override(document, ["name=__import__('os').system('true')"]).get("name") == "__import__('os').system('true')"
    with pytest.raises(UserError, match="not read here"):
        override(document, ["name=!!python/object/apply:os.getcwd []"])
