"""Everything that a file names, in every branch of its search."""

from __future__ import annotations

import pytest

from orchestrator.config import UserError, load
from orchestrator.config.document import Document
from orchestrator.config.semantics import branches, semantics
from orchestrator.config.structure import structure

FILE = {
    "data": {"use": "Digits"},
    "teacher": {"model": {"use": "ResNet8", "width": 32}},
    "student": {"model": {"use": "ResNet8"}},
    "paths": {"kd": {"use": "SoftTarget"}, "at": {"use": "AttentionTransfer"}},
    "train": {"epochs": 3},
}


def mistakes(**sections):
    with pytest.raises(UserError) as caught:
        semantics(structure(Document("sweep.yaml", {**FILE, **sections})))
    return {mistake.key: mistake.message for mistake in caught.value.mistakes}


def test_defaults_of_our_classes_are_filled_in_and_those_of_others_are_not():
    experiment = semantics(structure(Document("sweep.yaml", FILE)))
    assert experiment.paths["kd"] == {"use": "SoftTarget", "temperature": 4.0, "standardize": False}
    assert experiment.student.model == {"use": "ResNet8", "width": 16}
    assert experiment.train.optimizer == {"use": "torch.optim.SGD", "lr": 0.1, "momentum": 0.9}
    assert experiment.teacher.train["optimizer"] == experiment.train.optimizer
    assert semantics(structure(Document("sweep.yaml", experiment.config))).config == experiment.config


def test_a_wrong_value_of_the_search_is_reported_where_it_stands():
    found = mistakes(
        search={
            "paths.kd.temperature": {"grid": [1, -4]},
            "train.optimizer.lr": {"grid": {"low": 0.1, "high": -1}},
            "train.epoch": {"grid": [1]},
            "aggregator": {"grid": [{"use": "Equal"}, {"use": "Adaptve"}]},
            "student.model.width": {"choice": [4, 0]},
        },
        run={"num_arms": 3},
    )
    assert set(found) == {
        "search.paths.kd.temperature.grid.1",
        "search.train.optimizer.lr.grid.high",
        "search.train.epoch.grid.0",
        "search.aggregator.grid.1.use",
        "search.student.model.width.choice.1",
    }


def test_both_ends_of_a_range_are_tried():
    found = mistakes(search={"paths.kd.temperature": {"uniform": [-1, 4]}}, run={"num_arms": 3})
    assert list(found) == ["search.paths.kd.temperature.uniform"]


def test_keys_inside_one_another_are_tried_together_and_others_apart():
    search = {
        "aggregator": {"grid": [{"use": "Adaptive"}, {"use": "LogSum"}]},
        "aggregator.alpha_distill": {"grid": [1, 2]},
        "train.epochs": {"grid": [1, 2, 3]},
    }
    experiment = structure(Document("sweep.yaml", {**FILE, "search": search}))
    assert len(list(branches(experiment))) == 1 + 2 * 2 + 3
    found = mistakes(search={**search, "aggregator.max_weight": {"grid": [1]}})
    assert all("LogSum has no option 'max_weight'" in message for message in found.values())


def test_a_search_guided_by_validation_needs_one():
    data = {"use": "Digits", "split": {"protocol": "paper"}}
    search = {"train.optimizer.lr": {"uniform": [0.1, 1]}}
    assert list(mistakes(data=data, search=search, run={"num_arms": 3, "searcher": "optuna"})) == ["run.searcher"]
    assert list(mistakes(data=data, run={"scheduler": {"use": "ASHA"}})) == ["run.scheduler"]


GATED = """\
data: {use: Digits}
teacher: {model: {use: ResNet8, width: 32}}
student: {model: {use: ResNet8}}
paths: {attention: {use: AttentionTransfer}, soft_target: {use: SoftTarget}, logits: {use: Logits}}
train: {epochs: 1}
aggregator:
  use: Adaptive
  granularity: {early: [attention], late: [soft_target, logits]}
  modifiers:
    - {use: CosineGate, every: 5}
    - {use: Bound, growth: 6}
"""


def test_groups_and_modifiers_are_read_and_their_defaults_filled_in(tmp_path):
    path = tmp_path / "gated.yaml"
    path.write_text(GATED)
    aggregator = load(path).aggregator
    assert aggregator["granularity"] == {"early": ["attention"], "late": ["soft_target", "logits"]}
    gate, bound = aggregator["modifiers"]
    assert gate == {
        "use": "CosineGate", "scope": "taps", "every": 5, "smoothing": 0.9, "z": 2.0, "form": "hard", "start": "open",
        "wait": 3, "dense": 30,
    }  # fmt: skip
    assert bound == {"use": "Bound", "max_weight": None, "growth": 6.0, "over": 10}


@pytest.mark.parametrize(
    ("written", "instead", "message"),
    [
        ("use: CosineGate", "use: CosinGate", r":10: aggregator\.modifiers\.0\.use: .* Did you mean 'CosineGate'\?"),
        ("growth: 6", "growht: 6", r":11: aggregator\.modifiers\.1\.growht: Bound has .* Did you mean 'growth'\?"),
        (
            "every: 5",
            "every: 0",
            r":10: aggregator\.modifiers\.0\.every: must be a whole number of at least 1, found 0",
        ),
        ("every: 5", "form: hrd", r":10: aggregator\.modifiers\.0\.form: .* Did you mean 'hard'\?"),
        ("[attention]", "attention", r":8: aggregator\.granularity\.early: must be a list \(of text\)"),
        ("logits]}", "logit]}", r":8: aggregator\.granularity: .*in none: logits; .*: logit; .* 'logits'\?"),
        ("epochs: 1", "epochs: 1, compile: true", r":5: train\.compile: must be false with CosineGate, which takes"),
    ],
)
def test_what_is_wrong_with_groups_and_modifiers_is_said_where_it_stands(written, instead, message, tmp_path):
    path = tmp_path / "gated.yaml"
    assert GATED.count(written) == 1
    path.write_text(GATED.replace(written, instead))
    with pytest.raises(UserError, match=message) as caught:
        load(path)
    assert len(caught.value.mistakes) == 1


@pytest.mark.parametrize(
    ("aggregator", "diagnose", "at_fault"),
    [
        ({"use": "GradNorm"}, None, "GradNorm, which takes"),
        ({"use": "DistPro", "modifiers": [{"use": "CosineGate"}]}, None, "DistPro and CosineGate, which take"),
        ({"use": "Equal"}, {"every": 5}, "train.diagnose, which takes"),
    ],
)
def test_what_cannot_be_compiled_is_named(aggregator, diagnose, at_fault):
    found = mistakes(aggregator=aggregator, train={"epochs": 3, "compile": True, "diagnose": diagnose})
    assert list(found) == ["train.compile"]
    assert f"must be false with {at_fault} gradients" in found["train.compile"]


def test_what_looks_at_no_gradients_is_compiled():
    aggregator = {"use": "Adaptive", "modifiers": [{"use": "Bound", "growth": 6}]}
    written = {**FILE, "train": {"epochs": 3, "compile": True}, "aggregator": aggregator}
    assert semantics(structure(Document("sweep.yaml", written))).train.compile


def test_a_teacher_s_own_training_is_judged_and_what_it_takes_over_is_not_reported_twice():
    wrong = {"use": "torch.optim.SGD", "lr": -1}
    assert set(mistakes(train={"epochs": 3, "optimizer": wrong})) == {"train.optimizer.lr"}
    teacher = FILE["teacher"] | {"train": {"optimizer": wrong}}
    assert set(mistakes(teacher=teacher)) == {"teacher.train.optimizer.lr"}


def test_a_teacher_that_is_given_may_say_that_it_is_not_trained(tmp_path):
    teacher = FILE["teacher"] | {"checkpoint": str(tmp_path / "teacher.pt"), "train": None}
    assert semantics(structure(Document("sweep.yaml", {**FILE, "teacher": teacher}))).teacher.is_given


def test_modules_of_the_user_s_own(tmp_path, monkeypatch):
    (tmp_path / "own_paths_for_semantics.py").write_text(
        "from distill.paths import Logits\n\n\nclass Mine(Logits):\n    pass\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    path = tmp_path / "mine.yaml"
    path.write_text(
        "modules: [own_paths_for_semantics]\ndata: {use: Digits}\ntrain: {epochs: 1}\n"
        "teacher: {model: {use: ResNet8}}\nstudent: {model: {use: ResNet8}}\n"
        "paths: {own: {use: own_paths_for_semantics.Mine}}\n"
    )
    experiment = load(path)
    assert experiment.paths["own"] == {"use": "own_paths_for_semantics.Mine"}
    with pytest.raises(UserError, match="not allowed"):
        load(path, ["modules=[]"])
