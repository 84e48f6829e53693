"""The first look at a file: all of its sections, without torch."""

from __future__ import annotations

import subprocess
import sys

import pytest

from orchestrator.config import UserError, load_structure
from orchestrator.config.document import Document
from orchestrator.config.sections import TrainOptions
from orchestrator.config.structure import structure

MINIMAL = {"data": {"use": "Digits"}, "student": {"model": {"use": "ResNet8"}}, "train": {"epochs": 3}}
TEACHER = {"model": {"use": "ResNet20"}}
PATHS = {"soft_target": {"use": "SoftTarget"}, "attention": {"use": "AttentionTransfer"}}


def read(**sections):
    return structure(Document("experiment.yaml", {**MINIMAL, **sections}))


def mistakes(**sections):
    with pytest.raises(UserError) as caught:
        read(**sections)
    return {mistake.key: mistake for mistake in caught.value.mistakes}


def test_the_smallest_file_gets_all_defaults():
    experiment = read()
    assert experiment.name == "experiment"
    assert experiment.train == TrainOptions(epochs=3)
    assert experiment.task == {"use": "Classification"}
    assert (experiment.run.metric, experiment.run.mode, experiment.run.storage) == (None, None, "outputs")
    assert experiment.search is None
    assert experiment.config["data_seed"] == experiment.seed == 0


def test_the_data_seed_follows_the_seed_of_a_run_unless_it_is_given():
    assert read(seed=5).config["data_seed"] == 5
    assert read(seed=5, data_seed=2).config["data_seed"] == 2
    assert read(seed=5, search={"seed": {"grid": [0]}}).config["data_seed"] is None


def test_resolving_what_is_resolved_changes_nothing():
    config = read(teacher=TEACHER | {"train": {"epochs": 9}}, paths=PATHS).config
    assert structure(Document("experiment.yaml", config)).config == config


@pytest.mark.parametrize(
    ("sections", "key", "nearest"),
    [
        ({"studnet": {}}, "studnet", "student"),
        ({"train": {"epochs": 3, "batch_sise": 4}}, "train.batch_sise", "batch_size"),
        ({"run": {"worker": 2}}, "run.worker", "workers"),
        ({"run": {"mode": "maximum"}}, "run.mode", "max"),
        ({"teacher": {"modle": {}}}, "teacher.modle", "model"),
        ({"teacher": TEACHER | {"train": {"epoch": 3}}}, "teacher.train.epoch", "epochs"),
        ({"search": {"agregator": {"grid": [1]}}}, "search.agregator", "aggregator"),
        ({"search": {"seed": {"gird": [1]}}}, "search.seed.gird", "grid"),
        ({"search": {"paths": {"subset": 2}}}, "search.paths.subset", "subsets"),
        (
            {"search": {"paths.atention.x": {"grid": [1]}}, "paths": PATHS, "teacher": TEACHER},
            "search.paths.atention.x",
            "attention",
        ),
        (
            {"search": {"paths": {"sets": [["attention", "soft_traget"]]}}, "paths": PATHS, "teacher": TEACHER},
            "search.paths.sets.0.1",
            "soft_target",
        ),
    ],
)  # fmt: skip
def test_a_misspelt_key_is_told_the_nearest(sections, key, nearest):
    found = mistakes(**sections)
    assert found[key].nearest == nearest


@pytest.mark.parametrize(
    ("sections", "key", "words"),
    [
        ({"train": {}}, "train", "needs the key 'epochs'"),
        ({"train": {"epochs": 0}}, "train.epochs", "at least 1"),
        ({"train": {"epochs": 3.5}}, "train.epochs", "a whole number"),
        ({"train": {"epochs": True}}, "train.epochs", "a whole number"),
        ({"train": {"epochs": 3, "channels_last": "yes"}}, "train.channels_last", "write true"),
        ({"train": {"epochs": 3, "clip_norm": 0}}, "train.clip_norm", "above 0"),
        ({"train": {"epochs": 3, "scheduler": "OneCycleLR"}}, "train.scheduler", "a mapping or null"),
        ({"train": {"epochs": 3, "optimizer": {"lr": 1}}}, "train.optimizer", "{use: NAME}"),
        ({"data": None}, "data", "mapping"),
        ({"seed": -1}, "seed", "at least 0"),
        ({"name": "a/b"}, "name", "names a folder"),
        ({"paths": PATHS}, "paths", "add the section 'teacher'"),
        ({"paths": {"task": {"use": "Logits"}}, "teacher": TEACHER}, "paths.task", "taken"),
        ({"paths": {"a.b": {"use": "Logits"}}, "teacher": TEACHER}, "paths.a.b", "name of metrics"),
        ({"teacher": TEACHER | {"weights": "DEFAULT", "checkpoint": "x"}}, "teacher.checkpoint", "beside weights"),
        (
            {"teacher": TEACHER | {"weights": "DEFAULT", "weights_backbone": "DEFAULT"}},
            "teacher.weights_backbone",
            "beside weights",
        ),
        (
            {"student": TEACHER | {"weights_backbone": "DEFAULT", "checkpoint": "x"}},
            "student.weights_backbone",
            "beside checkpoint",
        ),
        ({"document": "x"}, "document", "cannot be given"),
        ({"search": {}}, "search", "must map keys"),
        ({"search": {"seed": {"grid": [1.5]}}}, "search.seed.grid", "whole numbers"),
        ({"search": {"seed": {"choice": [1]}}}, "search.seed.choice", "takes {grid: ...}"),
        ({"search": {"seed": {"grid": [0, 1, 0]}}}, "search.seed.grid.2", "twice"),
        ({"search": {"run.workers": {"grid": [1]}}}, "search.run.workers", "cannot vary"),
        ({"search": {"train.epochs": {"uniform": [3, 1]}}}, "search.train.epochs.uniform", "low below high"),
        ({"search": {"train.epochs": {"loguniform": [0, 1]}}}, "search.train.epochs.loguniform.0", "above 0"),
        ({"search": {"train.epochs": {"uniform": [1, 3]}}}, "search.train.epochs", "run.num_arms"),
        ({"search": {"train": {"optimizer": {"lr": {"grid": [1]}}}}}, "search.train", "with dots"),
        ({"search": {"paths": {"sets": [[]]}}, "paths": PATHS, "teacher": TEACHER}, "search.paths.sets.0", "alone"),
        ({"search": {"paths": {"subsets": 0}}, "paths": PATHS, "teacher": TEACHER}, "search.paths.subsets", "'all'"),
    ],
)
def test_what_is_wrong_is_said_where_it_stands(sections, key, words):
    found = mistakes(**sections)
    assert words in found[key].message, found[key]


def test_all_mistakes_of_a_file_come_at_once():
    found = mistakes(studnet={}, train={"epochs": "x", "batch": 3}, run={"workers": 0}, seed="a")
    assert set(found) == {"studnet", "train.epochs", "train.batch", "run.workers", "seed"}


def test_a_teacher_trains_as_the_file_says_unless_it_says_otherwise_or_is_given():
    train = {"epochs": 3, "batch_size": 16}
    resolved = read(train=train, teacher=TEACHER | {"train": {"epochs": 9}}).config["teacher"]["train"]
    assert (resolved["epochs"], resolved["batch_size"]) == (9, 16)
    assert read(train=train, teacher=TEACHER).config["teacher"]["train"]["epochs"] == 3
    assert read(train=train, teacher=TEACHER | {"checkpoint": "x.pt"}).config["teacher"]["train"] is None
    half = read(train=train, teacher=TEACHER | {"weights_backbone": "DEFAULT"}).config["teacher"]["train"]
    assert half["epochs"] == 3
    tuned = read(train=train, teacher=TEACHER | {"weights": "DEFAULT", "train": {"epochs": 1}})
    assert tuned.config["teacher"]["train"]["epochs"] == 1


def test_a_search_that_the_command_line_empties_is_none():
    assert read(search={"seed": None}).search is None


FAST = """
import sys, time
from orchestrator.config import UserError, load_structure
try:
    load_structure(sys.argv[1])
except UserError as error:
    print(error)
heavy = [name for name in ("torch", "torchvision", "ray", "mlflow", "numpy", "scipy") if name in sys.modules]
assert not heavy, heavy
print(time.process_time())
"""


def test_errors_of_structure_come_without_importing_anything_heavy(tmp_path):
    path = tmp_path / "experiment.yaml"
    path.write_text("data: {use: Digits}\nstudent: {model: {use: ResNet8}}\ntrain: {epoch: 3}\n")
    done = subprocess.run([sys.executable, "-c", FAST, str(path)], capture_output=True, text=True, check=True)
    line, _, seconds = done.stdout.strip().rpartition("\n")
    assert "experiment.yaml:3: train.epoch" in line
    assert float(seconds) < 1.5  # of CPU time: about 0.2, but a loaded machine is slower


def test_a_file_on_disk(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text("data: {use: Digits}\nstudent: {model: {use: ResNet8}}\ntrain: {epochs: 3}\n")
    experiment = load_structure(path, ["train.epochs=5", "train.optimizer.lr=1", "aggregator.alpha_distill=2"])
    assert experiment.train.optimizer == {"use": "torch.optim.SGD", "lr": 1, "momentum": 0.9}
    assert experiment.aggregator == {"use": "Equal", "alpha_distill": 2}
    assert (experiment.name, experiment.train.epochs, experiment.document.name) == ("mine", 5, "mine.yaml")
