"""What the picture of predictions takes from the experiment, and in which order its legend is."""

from __future__ import annotations

import torch

from orchestrator.prediction_picture import Column, _figure, _without_sources

WHITE = torch.full((3, 8, 8), 255, dtype=torch.uint8)


def column(*names: str) -> Column:
    return Column("found", "", [WHITE], dict.fromkeys(names, (0, 0, 0)))


def test_the_legend_has_the_order_of_the_data():
    figure = _figure([column("tree", "not known"), column("sky", "car")], "title", ["road", "sky", "tree", "car"])
    [legend] = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == ["sky", "tree", "car", "not known"]


def test_initial_weights_are_not_loaded_for_it():
    section = {"model": {"use": "x"}, "weights": "DEFAULT", "checkpoint": "a.pt", "weights_backbone": "DEFAULT"}
    config = _without_sources(
        {"student": section, "teacher": None, "paths": {"a": {}}, "aggregator": {"use": "Adaptive"}}
    )
    bare = {"model": {"use": "x"}, "weights": None, "checkpoint": None, "weights_backbone": None}
    assert (config["student"], config["teacher"]) == (bare, None)
