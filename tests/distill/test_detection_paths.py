"""Every path between detectors: of different families by their levels, of one family by their heads, too."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from detector_samples import CLASSES, HEIGHT, WIDTH, make, scenes
from torch import Tensor

from distill import paths
from distill.aggregators import Equal
from distill.distiller import Distiller
from distill.models import FCOS, DistributionFCOS, ResNet8, RetinaNet
from distill.paths import FGD, LD, BoxOffsets, FeatureMap, Logits, RegionLogits, SoftTarget
from distill.tasks import Detection
from distill.tasks.detectors import family_of
from distill.teacher import Teacher

TASK = Detection()
LEVELS = ("level0", "level1", "level2")
COARSEST = ("level2",)
OTHER_LAYERS = {
    "FSP": ("level0-level1", "level1-level2"),
    "ReviewKD": (*LEVELS, "level2-pooled"),
    "BoxOffsets": ("boxes",),  # both have the same anchors
    **dict.fromkeys(("CC", "PKT", "RKDAngle", "RKDDistance", "SP", "SRD"), COARSEST),
}
"""Layers of the paths that don't read each level by itself."""

OTHER_LABELS = {
    name: getattr(paths, name).needs_labels
    for name in paths.__all__
    if getattr(paths, name).needs_labels and "objects" not in getattr(paths, name).needs_labels
}
REFUSALS = {
    **{
        name: f"{name} reads the classes of {' or '.join(labels)}, but in this task objects have them"
        for name, labels in OTHER_LABELS.items()
    },
    "LD": "LD compares distributions of the sides of boxes, but the student's head gives none",
    "RegionLogits": "RegionLogits compares the second stages of two detectors, but the student has none",
    "SoftmaxRegression": "SoftmaxRegression needs a teacher with one classifier behind its deepest map, not a detector",
    **{
        name: rf"{name} compares logits of equal shape, but the student gives \[4, 1512\] and the teacher \[1, 1512\]"
        for name in ("CurriculumTemperature", "DIST", "Logits", "MultiLevelLogits", "SoftTarget")
    },
}
"""Why a RetinaNet does not learn by a path from a Faster R-CNN."""

EXAMPLES: dict[str, dict[str, Any]] = {"FT": {"pretrain": 0.0}, "KTA": {"pretrain": 0.0}}
"""Options of the paths from which a student learns nothing at first, and whose autoencoders wait when it learns."""


def distribution_fcos(seed: int, width: int = 4) -> torch.nn.Module:
    torch.manual_seed(seed)
    backbone = ResNet8(num_classes=2, width=width)
    return DistributionFCOS(backbone, num_classes=len(CLASSES), width=32, strides=(4, 8, 16), num_bins=6, depth=1)


def distil(path: paths.Path, student: torch.nn.Module, teacher: torch.nn.Module, **options: Any) -> tuple[Any, Any]:
    """Run one step on three images, one of which shows nothing; return the distiller and the step."""
    batch = scenes(3, empty=(1,))
    frozen = Teacher(teacher, TASK)
    distiller = Distiller(student, frozen, {"path": path}, Equal(), TASK, sample=batch.images, **options)
    step = distiller(batch, distiller.targets(frozen(batch.images)))
    step.total.backward()
    assert torch.isfinite(step.layers).all()
    for name, value in distiller.named_parameters():
        assert value.grad is None or torch.isfinite(value.grad).all(), name
    return distiller, step


@pytest.mark.parametrize("name", sorted(set(paths.__all__) - REFUSALS.keys()))
def test_a_retinanet_learns_from_a_faster_rcnn(name: str) -> None:
    assert HEIGHT != WIDTH
    path = getattr(paths, name)(**EXAMPLES.get(name, {}))
    distiller, step = distil(path, make("RetinaNet"), make("FasterRCNN", seed=1, width=16))
    assert distiller.layers["path"] == OTHER_LAYERS.get(name, LEVELS)
    assert step.layers.abs().sum() > 0
    silent = [parameter for parameter, value in path.named_parameters() if value.grad is None]
    assert silent == [] or name in EXAMPLES


def test_paths_that_read_classes_of_images_say_so() -> None:
    assert {"CRD", "DKD", "WSLD"} <= OTHER_LABELS.keys()


@pytest.mark.parametrize("name", sorted(REFUSALS))
def test_what_makes_no_sense_is_refused_on_the_meta_device(name: str) -> None:
    with torch.device("meta"):
        sample = torch.empty(2, 3, HEIGHT, WIDTH)
        probes = [TASK.probe(make(family).to("meta"), sample) for family in ("RetinaNet", "FasterRCNN")]
        with pytest.raises(ValueError, match=f"^{REFUSALS[name]}"):
            getattr(paths, name)().connect(*probes)


@pytest.mark.parametrize("family", ["RetinaNet", "FCOS", "SSD", "FasterRCNN"])
@pytest.mark.parametrize("kind", [SoftTarget, Logits, BoxOffsets])
def test_heads_of_one_family_learn_location_by_location(family: str, kind: type[paths.Path]) -> None:
    _, step = distil(kind(), make(family), make(family, seed=1, width=16))
    assert step.layers.sum() > 0
    _, same = distil(kind(), make(family).eval(), make(family))
    assert same.layers.sum().item() == pytest.approx(0, abs=1e-5)


def test_the_second_stage_learns_from_the_teachers_regions() -> None:
    student = make("FasterRCNN")
    distiller, step = distil(RegionLogits(number=12), student, make("FasterRCNN", seed=1, width=16))
    assert (step.layers > 0).all()
    assert len(list(distiller.parameters())) == len(list(student.parameters()))
    _, same = distil(RegionLogits(number=12, background_weight=1.0), make("FasterRCNN").eval(), make("FasterRCNN"))
    assert same.layers.sum().item() == pytest.approx(0, abs=1e-5)


def test_gradients_of_the_second_stage_reach_its_head_and_the_levels() -> None:
    batch = scenes(2)
    student, frozen = make("FasterRCNN"), Teacher(make("FasterRCNN", seed=1), TASK)
    path = RegionLogits(number=12)
    path.connect(TASK.probe(student, batch.images), TASK.probe(frozen.model, batch.images))
    frozen.watch([])
    output = TASK.run(student, batch.images)
    losses = path(TASK.outputs(output), path.target(frozen(batch.images)), batch)
    for layer, head in (("classes", "cls_score"), ("boxes", "bbox_pred")):
        found = torch.autograd.grad(losses[layer], list(student.parameters()), retain_graph=True, allow_unused=True)
        names = {name for (name, _), slope in zip(student.named_parameters(), found, strict=True) if slope is not None}
        assert f"roi_heads.box_predictor.{head}.weight" in names
        assert any(name.startswith("backbone") for name in names)
        assert not any(name.startswith("rpn") for name in names)


def test_sides_of_boxes_are_learned_from_distributions() -> None:
    _, step = distil(LD(), distribution_fcos(0), distribution_fcos(1, width=8))
    assert step.layers.sum() > 0
    _, same = distil(LD(), distribution_fcos(0).eval(), distribution_fcos(0))
    assert same.layers.sum().item() == pytest.approx(0, abs=1e-5)
    distil(FGD(), distribution_fcos(0), make("FCOS", seed=1))


def test_all_losses_of_boxes_have_their_gradient_at_the_distributions() -> None:
    batch, model = scenes(2), make("DistributionFCOS")
    output = TASK.run(model, batch.images)
    losses = family_of(model).losses(output, batch.objects.trained())
    for name in ("bbox_regression", "bbox_distribution"):
        (slope,) = torch.autograd.grad(losses[name], [output.parts[":box_distribution"]], retain_graph=True)
        assert slope.abs().sum() > 0


@pytest.mark.parametrize(
    ("path", "student", "teacher", "message"),
    [
        (
            BoxOffsets(),
            (RetinaNet, {"anchor_scale": 2.0}),
            (RetinaNet, {"anchor_scale": 4.0}),
            r"\(\(8.0,.*16.0,",
        ),
        (BoxOffsets(), (RetinaNet, {}), (FCOS, {"anchor_scale": 4.0}), "BoxCoder and .*BoxLinearCoder and "),
        (LD(), (DistributionFCOS, {"anchor_scale": 2.0}), (DistributionFCOS, {}), r"sizes \(\(8.0,.*\(\(4.0,"),
    ],
)
def test_offsets_of_other_anchors_are_refused(path: paths.Path, student: Any, teacher: Any, message: str) -> None:
    """In shape they agree."""
    probes = []
    for build, options in (student, teacher):
        one = {"anchors_per_octave": 1, "aspect_ratios": (1.0,)} if build is RetinaNet else {}
        model = build(ResNet8(num_classes=2, width=4), num_classes=4, width=32, strides=(4, 8, 16), **one | options)
        probes.append(TASK.probe(model, scenes(2).images))
    assert probes[0].output_shapes[":boxes"] == probes[1].output_shapes[":boxes"]
    with pytest.raises(ValueError, match=f"in one way of the same anchors, but the student's are of .*{message}"):
        path.connect(*probes)


def test_levels_can_be_named() -> None:
    pair = {"student": ":level2", "teacher": ":level1"}
    distiller, _ = distil(FeatureMap(taps=[pair]), make("RetinaNet"), make("FasterRCNN", seed=1))
    assert distiller.layers["path"] == ("level2",)


def test_other_parts_of_the_output_are_no_maps() -> None:
    pair = {"student": ":boxes", "teacher": ":level1"}
    with pytest.raises(ValueError, match=r"':boxes' is a part of its output and no feature map; its feature maps are"):
        distil(FeatureMap(taps=[pair]), make("RetinaNet"), make("FasterRCNN", seed=1))


@pytest.mark.parametrize("path", [FGD(), BoxOffsets(), SoftTarget()])
def test_half_precision(path: paths.Path) -> None:
    _, step = distil(path, make("RetinaNet"), make("RetinaNet", seed=1, width=16), precision="bfloat16")
    assert step.layers.dtype == torch.float32


def test_half_precision_of_regions_and_distributions() -> None:
    for path, student, teacher in (
        (RegionLogits(number=12), make("FasterRCNN"), make("FasterRCNN", seed=1)),
        (LD(), distribution_fcos(0), distribution_fcos(1)),
    ):
        _, step = distil(path, student, teacher, precision="bfloat16")
        assert step.layers.dtype == torch.float32


def test_a_target_is_the_same_sample_by_sample() -> None:
    batch = scenes(3)
    frozen = Teacher(make("FasterRCNN"), TASK)
    probe = TASK.probe(frozen.model, batch.images)
    path = RegionLogits(number=12)
    path.connect(probe, probe)
    whole: dict[str, Tensor] = path.target(frozen(batch.images))
    assert whole["classes"].shape == (3, 12, 4 + 4)
    assert whole["boxes"].shape == (3, 12, 4 + 16)
    for sample in range(3):
        alone = path.target(frozen(batch.images[sample : sample + 1]))
        for layer, value in alone.items():
            torch.testing.assert_close(whole[layer][sample : sample + 1], value, rtol=1e-4, atol=1e-4)
