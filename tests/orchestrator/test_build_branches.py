"""What check says of detectors: exact shapes of what is compared, and one line where a path does not fit."""

from __future__ import annotations

import pytest
from torch import nn

from orchestrator.build_branches import build_branches
from orchestrator.config import UserError
from orchestrator.config.document import Document
from orchestrator.config.semantics import semantics
from orchestrator.config.structure import structure

STUDENT = {"use": "RetinaNet", "strides": [4, 8, 16], "backbone": {"use": "ResNet8", "width": 8}, "width": 16}
FILE = {
    "task": {"use": "Detection"},
    "data": {"use": "DigitScenes", "annotate": "boxes"},
    "teacher": {"model": {**STUDENT, "backbone": {"use": "ResNet8", "width": 16}}},
    "student": {"model": STUDENT},
    "train": {"epochs": 1},
}


def built(**sections):
    [found] = build_branches(semantics(structure(Document("run.yaml", {**FILE, **sections}))))
    return found


def branch(path: str):
    return built(paths={"path": {"use": path}})


def test_models_are_called_by_what_they_are_built_on():
    assert branch("Logits").student == "RetinaNet on ResNet8"


def test_what_detectors_say_of_locations_has_its_own_shape():
    # 9 anchors a place on maps of 16, 8 and 4 rows and columns; 11 classes, the background among them.
    num_locations = 9 * (16**2 + 8**2 + 4**2)
    [connection] = branch("Logits").paths[0].connections
    assert connection.student == "output"
    assert connection.student_shape == connection.teacher_shape == (11, num_locations)


def test_levels_are_shown_as_maps():
    connections = branch("Hint").paths[0].connections
    assert [(each.student, each.student_shape) for each in connections] == [
        (":level0", (16, 16, 16)),
        (":level1", (16, 8, 8)),
        (":level2", (16, 4, 4)),
    ]


def test_a_path_that_does_not_fit_is_one_line_at_its_key():
    with pytest.raises(UserError) as caught:
        branch("DIST")
    [mistake] = caught.value.mistakes
    assert mistake.key == "paths.path.use"
    assert "sigmoid" in mistake.message


def test_a_classifier_is_no_detector():
    with pytest.raises(UserError) as caught:
        built(teacher=None, student={"model": {"use": "ResNet8"}})
    [mistake] = caught.value.mistakes
    assert mistake.key == "student.model"
    assert "RetinaNet" in mistake.message


def test_weights_of_a_backbone_that_cannot_be_had_are_one_mistake_before_anything_is_trained(monkeypatch):
    def offline(choice):
        raise OSError(f"{choice} cannot be downloaded")

    monkeypatch.setattr("orchestrator.build_branches.fetch", offline)
    model = {**STUDENT, "backbone": {"use": "torchvision.models.resnet18"}}
    with pytest.raises(UserError) as caught:
        built(student={"model": model, "weights_backbone": "DEFAULT"})
    [mistake] = caught.value.mistakes
    assert mistake.key == "student.weights_backbone"
    assert mistake.message == "ResNet18_Weights.IMAGENET1K_V1 cannot be downloaded"


DEEPLAB = {"use": "DeepLabV3", "width": 16, "atrous_rates": [1, 2], "backbone": {"use": "ResNet8", "width": 8}}
FCN = {"use": "FCN", "backbone": {"use": "ResNet8", "width": 8}}


@pytest.mark.parametrize("role", ["student", "teacher"])
def test_a_model_that_cannot_learn_from_one_image_is_refused_before_a_worker_gets_one(role):
    batch_size = "train.batch_size" if role == "student" else "teacher.train.batch_size"
    models = {"student": DEEPLAB, "teacher": FCN} if role == "student" else {"student": FCN, "teacher": DEEPLAB}

    def built_for(student: int, teacher: int):
        return built(
            task={"use": "SemanticSegmentation"},
            data={"use": "DigitScenes", "annotate": "masks"},
            student={"model": models["student"]},
            teacher={"model": models["teacher"], "train": {"epochs": 1, "batch_size": teacher}},
            train={"epochs": 1, "batch_size": student},
            run={"workers": 2},
        )

    with pytest.raises(UserError) as caught:
        built_for(2, 4) if role == "student" else built_for(4, 2)
    [mistake] = caught.value.mistakes
    assert mistake.key == batch_size
    assert "must be at least twice run.workers with DeepLabV3 on ResNet8" in mistake.message
    assert "more than 1 value per channel" in mistake.message
    built_for(4, 2) if role == "student" else built_for(2, 4)  # an FCN learns from one image


class Peeking(nn.Module):
    """Looks at values while it trains, which a model on the meta device has none of."""

    def __init__(self, num_classes: int, in_channels: int = 1) -> None:
        super().__init__()
        self.backbone = nn.Conv2d(in_channels, num_classes, 1)

    def forward(self, images):
        if self.training and float(images.mean()) > 1:
            raise AssertionError
        return self.backbone(images)


def test_a_model_that_cannot_be_judged_without_values_passes():
    built(
        modules=["test_build_branches"],
        task={"use": "SemanticSegmentation"},
        data={"use": "DigitScenes", "annotate": "masks", "channels": 1},
        student={"model": {"use": "test_build_branches.Peeking"}},
        teacher=None,
        train={"epochs": 1, "batch_size": 1},
    )
