from __future__ import annotations

import hashlib
from pathlib import Path

import mlflow
import pytest
from empty_store import copy_empty_store
from mlflow.tracking import MlflowClient

from orchestrator.shared_view import TAG_PREFIX, arranged_views, experiment_note, unpack, view_link

PATHS = ["attention", "soft_target"]


def _charts(tag_value):
    return [chart["displayName"] for chart in unpack(tag_value)["compareRunCharts"]]


def test_tag_round_trips_through_a_store(tmp_path):
    copy_empty_store(tmp_path / "mlflow.db")
    client = MlflowClient(f"sqlite:///{tmp_path / 'mlflow.db'}")
    experiment_id = client.create_experiment("digits")
    views = arranged_views(PATHS, metric="accuracy")
    for name, value in views.items():
        client.set_experiment_tag(experiment_id, name, value)
    tags = client.get_experiment(experiment_id).tags
    assert {name: tags[name] for name in views} == views
    state = unpack(tags[TAG_PREFIX + "distillery"])
    assert (state["orderByKey"], state["orderByAsc"]) == ("metrics.`result/gain`", False)
    assert {"metrics.`result/gain`", "params.`paths`"} <= set(state["selectedColumns"])


def test_the_installed_ui_still_reads_the_tag():
    bundle = Path(mlflow.__file__).parent / "server" / "js" / "build" / "static" / "js"
    (main,) = bundle.glob("main.*.js")
    content = main.read_text(encoding="utf-8", errors="replace")
    assert f'"{TAG_PREFIX}"' in content
    # The other words of the undocumented format that the view depends on.
    for word in ("viewStateShareKey", "compareRunSections", "SHOW_ALL", "showRunParams", "deflate;"):
        assert any(word in file.read_text(errors="replace") for file in bundle.glob("*.js")), word


def test_every_path_has_its_charts_and_every_chart_a_section():
    views = arranged_views(PATHS, metric="accuracy")
    for value in views.values():
        state = unpack(value)
        sections = {section["uuid"] for section in state["compareRunSections"]}
        assert {chart["metricSectionId"] for chart in state["compareRunCharts"]} == sections
        uuids = [chart["uuid"] for chart in state["compareRunCharts"]]
        assert len(uuids) == len(set(uuids))
        for path in PATHS:
            assert {f"train/{what}/{path}" for what in ("share", "weight", "loss")} <= set(_charts(value))


def test_pictures_come_first_and_only_where_they_are_shown():
    views = arranged_views(PATHS, picture_keys=["compare/path_effect", "compare/aggregators"], metric="accuracy")
    assert _charts(views[TAG_PREFIX + "distillery"])[:3] == [
        "compare/path_effect",
        "compare/aggregators",
        "result/gain",
    ]
    assert _charts(views[TAG_PREFIX + "distillery-arms"])[0] == "result/gain"
    assert _charts(arranged_views(PATHS, metric="accuracy")[TAG_PREFIX + "distillery"])[0] == "result/gain"


def test_arms_are_averaged_over_seeds():
    views = arranged_views(PATHS, metric="accuracy")
    assert unpack(views[TAG_PREFIX + "distillery"])["groupBy"] is None
    grouped = unpack(views[TAG_PREFIX + "distillery-arms"])
    assert grouped["groupBy"] == {
        "aggregateFunction": "average",
        "groupByKeys": [{"mode": "tag", "groupByData": "arm"}],
    }


def test_a_sweep_of_many_layers_fits_the_tag():
    views = arranged_views([f"attention.layer{number}.conv{number}" for number in range(100)], metric="accuracy")
    assert max(map(len, views.values())) < 20_000


def test_view_without_room_is_an_error():
    with pytest.raises(ValueError, match="must fit a tag of 20000 characters"):
        arranged_views(
            [hashlib.sha256(bytes([number // 256, number % 256])).hexdigest() for number in range(600)],
            metric="accuracy",
        )


def test_link_opens_the_runs_and_not_the_empty_first_page():
    link = "http://127.0.0.1:5000/#/experiments/7/runs?workflowType=machine_learning&viewStateShareKey=distillery"
    assert view_link("http://127.0.0.1:5000/", "7") == f"{link}&compareRunsMode=CHART"
    assert view_link("http://127.0.0.1:5000", "7", mode="TABLE") == f"{link}&compareRunsMode=TABLE"


def test_note_begins_with_the_answer_in_one_line():
    note = experiment_note("Helps: a.\n  Best arm: b. ", "| x |\n|---|\n| 1 |")
    assert note == "Helps: a. Best arm: b.\n\n| x |\n|---|\n| 1 |\n"
