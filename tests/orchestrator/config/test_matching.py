"""Data that are not annotated as the task needs, and metrics that it does not measure."""

from __future__ import annotations

import pytest

from orchestrator.config import UserError
from orchestrator.config.document import Document
from orchestrator.config.semantics import semantics
from orchestrator.config.structure import structure

FILE = {
    "data": {"use": "Digits"},
    "student": {"model": {"use": "ResNet8"}},
    "train": {"epochs": 3},
}
PAINTED = {
    "modules": ["small_dense"],
    "task": {"use": "small_dense.Painting"},
    "data": {"use": "small_dense.SquareMasks"},
    "student": {"model": {"use": "small_dense.SmallFCN"}},
}
ON_RESNET = {"student": {"model": {"use": "FCN", "backbone": {"use": "ResNet8"}}}}


def checked(**sections):
    return semantics(structure(Document("run.yaml", {**FILE, **sections})))


def mistakes(**sections):
    with pytest.raises(UserError) as caught:
        checked(**sections)
    return {mistake.key: (mistake.message, mistake.nearest) for mistake in caught.value.mistakes}


def test_the_task_says_what_ranks_and_the_resolved_file_says_it_too():
    run = checked().config["run"]
    assert (run["metric"], run["mode"]) == ("val/accuracy", "max")
    run = checked(**PAINTED).config["run"]
    assert (run["metric"], run["mode"]) == ("val/miou", "max")


def test_the_task_says_in_what_batches_to_evaluate_unless_the_file_does():
    assert checked().config["train"]["eval_batch_size"] == 256
    teacher = {"model": {"use": "small_dense.SmallFCN"}, "train": {"epochs": 2}}
    dense = checked(**PAINTED, teacher=teacher).config
    assert (dense["train"]["eval_batch_size"], dense["teacher"]["train"]["eval_batch_size"]) == (16, 16)
    asked = checked(**PAINTED, teacher=teacher, train={"epochs": 3, "eval_batch_size": 5}).config
    assert (asked["train"]["eval_batch_size"], asked["teacher"]["train"]["eval_batch_size"]) == (5, 5)


@pytest.mark.parametrize("metric", ["val/loss", "val/calibration_error"])
def test_what_should_be_small_ranks_by_the_smallest(metric):
    assert checked(run={"metric": metric}).run.mode == "min"
    assert mistakes(run={"metric": metric, "mode": "max"}) == {
        "run.mode": (f"must be min with {metric}, of which less is better; found max", "")
    }


def test_accuracy_is_not_to_be_small():
    assert list(mistakes(run={"mode": "min"})) == ["run.mode"]


def test_a_metric_of_another_task_is_named_with_those_of_this_one():
    assert mistakes(**PAINTED, run={"metric": "val/mIoU"}) == {
        "run.metric": ("must be a metric of Painting: val/miou, val/loss; found 'val/mIoU'.", "val/miou")
    }
    message, nearest = mistakes(run={"metric": "val/acuracy"})["run.metric"]
    assert nearest == "val/accuracy"
    assert "val/top5" in message


def test_top5_says_nothing_of_few_classes():
    few = {"use": "small_few.FewDigits"}
    message, _ = mistakes(modules=["small_few"], data=few, run={"metric": "val/top5"})["run.metric"]
    assert message == "must not be val/top5 with 4 classes, of which five hit nearly always"


def test_the_hash_of_classification_is_what_it_was():
    """Of the revision before tasks named their metrics: runs of old sweeps are found again."""
    assert checked(seed=3).config_hash == "a1583b85c3c4689b"


def test_data_without_masks_for_a_task_that_learns_from_masks():
    found = mistakes(**{**PAINTED, "data": {"use": "Digits"}})
    message, _ = found.pop("data")
    assert message.startswith("Digits gives a class to each image, but small_dense.Painting learns from masks; ")
    assert "tasks for a class for each image: Classification" in message
    assert not found


@pytest.mark.parametrize("data", ["small_dense.SquareMasks", "small_dense.squares"])
def test_masks_for_a_task_that_learns_from_classes(data):
    found = mistakes(modules=["small_dense"], data={"use": data})
    message, _ = found.pop("data")
    assert message.startswith(
        f"{data} annotates images with masks, but Classification learns from a class for each image; "
        "data sets with a class for each image: "
    )
    assert "CIFAR10" in message
    assert not found


def test_wrong_options_do_not_hide_that_data_and_task_do_not_meet():
    found = mistakes(**{**PAINTED, "data": {"use": "Digits", "chanels": 3}})
    assert set(found) == {"data", "data.chanels"}


def test_a_data_set_that_leaves_the_choice_to_an_option_is_judged_by_it():
    scenes = {"use": "DigitScenes", "annotate": "boxes"}
    painted = {"task": {"use": "SemanticSegmentation"}, **ON_RESNET}
    message, _ = mistakes(**painted, data=scenes)["data"]
    assert message.startswith(
        "DigitScenes annotates images with boxes, but SemanticSegmentation learns from masks, "
        "which an option of it chooses: distillery ls DigitScenes; "
    )
    offered = message.partition("data sets with masks: ")[2].partition(";")[0].split(", ")
    assert "DigitScenes" in offered
    assert "Digits" not in offered
    assert "tasks for boxes: Detection" in message
    assert checked(**painted, data={**scenes, "annotate": "masks"}).run.metric == "val/miou"


def test_class_weights_for_other_classes_are_one_mistake_at_their_key():
    scenes = {"use": "DigitScenes", "annotate": "masks"}
    task = {"use": "SemanticSegmentation", "class_weights": [1, 2]}
    found = mistakes(task=task, data=scenes, **ON_RESNET)
    assert found == {"task.class_weights": ("must be one for each of the 11 classes, found 2", "")}


def test_where_its_options_are_wrong_only_what_it_never_offers_is_refused():
    scenes = {"use": "DigitScenes", "annotat": "boxes"}
    assert set(mistakes(task={"use": "SemanticSegmentation"}, data=scenes, **ON_RESNET)) == {"data.annotat"}
    message, _ = mistakes(data=scenes)["data"]
    assert message.startswith("DigitScenes annotates images with masks or boxes, but Classification learns")


FOUND = {
    "task": {"use": "Detection"},
    "data": {"use": "DigitScenes", "annotate": "boxes"},
    "student": {"model": {"use": "FCOS", "backbone": {"use": "ResNet8"}, "strides": [1, 2, 4]}},
    "teacher": {"model": {"use": "FCOS", "backbone": {"use": "ResNet8"}, "strides": [1, 2, 4]}},
}


def test_detection_is_not_compiled_and_segmentation_is():
    message = "must be false with Detection, whose loss depends on the number of objects; found true"
    teacher = {**FOUND["teacher"], "train": {"epochs": 2, "compile": True}}
    found = mistakes(**{**FOUND, "train": {"epochs": 3, "compile": True}, "teacher": teacher})
    assert found == {"train.compile": (message, ""), "teacher.train.compile": (message, "")}
    assert not checked(**FOUND).train.compile
    assert checked(**PAINTED, train={"epochs": 3, "compile": True}).train.compile
