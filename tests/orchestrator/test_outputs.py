import json

import pytest

from orchestrator.config import UserError
from orchestrator.outputs import Outputs

EXPERIMENT = {"name": "small", "config": {"seed": 0, "train": {"epochs": 3}, "run": {"workers": 1}}}


def record(key, status="finished", **more):
    return {"key": key, "result": {"status": status, **more}}


def test_a_new_folder_is_claimed_and_described(tmp_path):
    outputs = Outputs(str(tmp_path), "small")
    outputs.claim(EXPERIMENT, resume=False)
    assert Outputs(str(tmp_path), "small").experiment() == EXPERIMENT


def test_the_same_configuration_needs_resume(tmp_path):
    Outputs(str(tmp_path), "small").claim(EXPERIMENT, resume=False)
    again = Outputs(str(tmp_path), "small")
    with pytest.raises(UserError, match="--resume"):
        again.claim(EXPERIMENT, resume=False)
    again.claim(EXPERIMENT, resume=True)


def test_another_configuration_is_refused_by_its_keys_even_with_resume(tmp_path):
    Outputs(str(tmp_path), "small").claim(EXPERIMENT, resume=False)
    other = {**EXPERIMENT, "config": {**EXPERIMENT["config"], "train": {"epochs": 4}}}
    with pytest.raises(UserError, match=r"train\.epochs: 3 there, 4 here") as caught:
        Outputs(str(tmp_path), "small").claim(other, resume=True)
    assert "seed" not in str(caught.value)


def test_the_newest_record_of_a_run_counts_and_a_torn_line_is_passed_over(tmp_path):
    outputs = Outputs(str(tmp_path), "small")
    outputs.ended(record("a", "failed", reason="x"))
    outputs.ended(record("b"))
    outputs.ended(record("a"))
    with (outputs.folder / "runs.jsonl").open("a") as file:
        file.write('{"key": "c", "resu')
    results = outputs.past_results()
    assert {key: each["result"]["status"] for key, each in results.items()} == {"a": "finished", "b": "finished"}


def test_past_runs_hold_histories_and_only_results_that_need_not_be_repeated(tmp_path):
    outputs = Outputs(str(tmp_path), "small")
    outputs.reported("a", {"epoch": 1, "val/accuracy": 50.0})
    outputs.reported("b", {"epoch": 1, "val/accuracy": 40.0})
    outputs.reported("a", {"epoch": 2, "val/accuracy": 60.0})
    outputs.reported("a", {"epoch": 1, "val/accuracy": 51.0})  # a retried epoch replaces the first attempt
    outputs.ended(record("a"))
    outputs.ended(record("c", "failed"))
    past = {run.key: run for run in outputs.past_runs()}
    assert [line["val/accuracy"] for line in past["a"].history] == [51.0, 60.0]
    assert past["a"].result == {"status": "finished"}
    assert past["b"].result is None
    assert past["c"].result is None


def test_sampled_arms_are_remembered_in_order(tmp_path):
    outputs = Outputs(str(tmp_path), "small")
    outputs.proposed({"lr": 0.1})
    outputs.proposed({"lr": 0.2})
    assert Outputs(str(tmp_path), "small").past_arms() == [{"lr": 0.1}, {"lr": 0.2}]


def test_storage_behind_a_uri_gets_copies_and_gives_them_back(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    uri = "memory://outputs-test"
    first = Outputs(uri, "small")
    first.claim(EXPERIMENT, resume=False)
    first.reported("a", {"epoch": 1})
    first.ended(record("a"))
    monkeypatch.setenv("HOME", str(tmp_path / "another"))  # another machine
    second = Outputs(uri, "small")
    assert second.experiment() == EXPERIMENT
    assert second.past_results() == {"a": record("a")}
    assert [run.key for run in second.past_runs()] == ["a"]


def test_teachers_and_data_are_noted(tmp_path):
    outputs = Outputs(str(tmp_path), "small")
    outputs.claim(EXPERIMENT, resume=False)
    outputs.note_teachers({"beef": {"data_fingerprint": "d1"}, "cafe": {"data_fingerprint": "d1"}})
    noted = json.loads((tmp_path / "small" / "experiment.json").read_text())
    assert noted["teacher_fingerprint"] == "beef, cafe"
    assert noted["data_fingerprint"] == "d1"
