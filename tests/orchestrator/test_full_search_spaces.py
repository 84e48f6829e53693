"""The search spaces of the large data sets: right where the data are, one clear line where they are not."""

from __future__ import annotations

import importlib
from pathlib import Path

import pytest

import search_spaces
from orchestrator import cli

FOLDER = Path(search_spaces.__file__).parent
DATA_TESTS = Path(__file__).parents[1] / "distill" / "data"
WRITERS = {
    "cityscapes": ("write_cityscapes", {"train": 4, "val": 1}),
    "ade20k": ("write_ade20k", {"training": 8, "validation": 2}),
    "coco": ("write_coco", {"train": 8, "val": 2}),
}
"""What writes each data set in its own layout, and how many images a part."""
BACKBONES = {
    "cityscapes": {"ResNet101_Weights.IMAGENET1K_V2", "ResNet18_Weights.IMAGENET1K_V1"},
    "ade20k": {"ResNet50_Weights.IMAGENET1K_V2", "ResNet18_Weights.IMAGENET1K_V1"},
    "coco": {"ResNet101_Weights.IMAGENET1K_V2", "ResNet18_Weights.IMAGENET1K_V1"},
}
"""The weights that check would download."""
FEWER = ["data.split.validation=3", "train.batch_size=2", "teacher.train.batch_size=2", "store=off"]
"""Small folders have fewer images than the recipes count on, and no teacher is tried; all else is as shipped."""


@pytest.mark.parametrize("name", WRITERS)
def test_they_are_right_where_the_data_are(name, tmp_path, monkeypatch, capsys):
    fetched = []
    monkeypatch.setattr("orchestrator.build_branches.fetch", fetched.append)
    monkeypatch.syspath_prepend(str(DATA_TESTS))
    writer, parts = WRITERS[name]
    getattr(importlib.import_module("annotated_roots"), writer)(tmp_path, parts)
    status = cli.main(["check", str(FOLDER / f"{name}.yaml"), f"data.root={tmp_path}", *FEWER])
    shown = capsys.readouterr()
    assert status == 0, shown.err
    assert {str(choice) for choice in fetched} == BACKBONES[name]
    assert "3 validation" in shown.out
    assert "of the student alone" in shown.out


@pytest.mark.parametrize("name", WRITERS)
def test_they_say_where_the_data_are_not(name, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("DISTILLERY_DATA", str(tmp_path))
    assert cli.main(["check", str(FOLDER / f"{name}.yaml")]) == 2
    [line] = capsys.readouterr().err.splitlines()
    assert str(tmp_path) in line
    monkeypatch.delenv("DISTILLERY_DATA")
    assert cli.main(["check", str(FOLDER / f"{name}.yaml")]) == 2
    [line] = capsys.readouterr().err.splitlines()
    assert "found '${DISTILLERY_DATA}' with DISTILLERY_DATA unset" in line
