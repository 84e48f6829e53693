"""Every path between two models for semantic segmentation of different families, strides and widths."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from path_cases import EXAMPLES, example
from torch import Tensor, nn
from torchvision.models._utils import IntermediateLayerGetter
from torchvision.models.mobilenetv3 import InvertedResidualConfig, MobileNetV3
from torchvision.models.resnet import BasicBlock, ResNet
from torchvision.models.segmentation import FCN, LRASPP
from torchvision.models.segmentation.fcn import FCNHead

from distill import paths
from distill.aggregators import Adaptive, Equal
from distill.batch import Batch, Samples
from distill.distiller import Distiller
from distill.taps import Probe
from distill.tasks import SemanticSegmentation
from distill.teacher import Teacher

TASK = SemanticSegmentation()
CLASSES = 5
HEIGHT, WIDTH = 48, 80
"""Neither square nor a multiple of every stride."""
SAMPLES = Samples(torch.arange(4), torch.arange(4) % 2)
REFUSED = {
    "BoxOffsets": "BoxOffsets compares the boxes of two detectors",
    "CRD": "CRD reads the classes of images, but in this task pixels have them",
    "FGD": "FGD reads the classes of objects, but in this task pixels have them",
    "LD": "LD reads the classes of objects, but in this task pixels have them",
    "MultiLevelLogits": "MultiLevelLogits takes one answer an image",
    "RegionLogits": "RegionLogits compares the second stages of two detectors",
}
"""Paths that refuse such models, and why."""
TAKEN = sorted(set(paths.__all__) - set(REFUSED))


def make_teacher() -> nn.Module:
    """A residual network of strides 4 to 32, and a fully convolutional head."""
    torch.manual_seed(1)
    body = IntermediateLayerGetter(ResNet(BasicBlock, [1, 1, 1, 1]), {"layer4": "out"})
    return FCN(body, FCNHead(512, CLASSES))


def make_student() -> nn.Module:
    """A mobile network of strides 4 to 16, and a head that reads two of its stages."""
    torch.manual_seed(2)
    rows = [(16, 16, 16, 2), (16, 24, 24, 2), (24, 48, 32, 2)]
    settings = [InvertedResidualConfig(i, 3, e, o, True, "HS", s, 1, 1.0) for i, e, o, s in rows]
    body = MobileNetV3(settings, 32).features
    return LRASPP(IntermediateLayerGetter(body, {"2": "low", "4": "high"}), 24, 192, CLASSES)


def images() -> Tensor:
    return torch.rand(4, 3, HEIGHT, WIDTH, generator=torch.Generator().manual_seed(0)) - 0.5


def batch() -> Batch:
    masks = torch.randint(CLASSES, (4, HEIGHT, WIDTH), generator=torch.Generator().manual_seed(3))
    masks[:, :7] = 255
    return Batch(images(), masks, torch.arange(4))


@pytest.fixture(scope="module")
def probes() -> list[Probe]:
    """What is known of both models without computing anything."""
    with torch.device("meta"):
        return [
            TASK.probe(make().to("meta"), torch.empty(2, 3, HEIGHT, WIDTH)) for make in (make_student, make_teacher)
        ]


def test_the_models_are_of_different_strides(probes: list[Probe]) -> None:
    assert [[2**stage.octave for stage in probe.stages] for probe in probes] == [[4, 8, 16], [4, 8, 16, 32]]
    assert [probe.output_shape for probe in probes] == [(CLASSES, HEIGHT, WIDTH)] * 2


@pytest.mark.parametrize("name", sorted(REFUSED))
def test_some_refuse_by_a_rule(name: str, probes: list[Probe]) -> None:
    with pytest.raises(ValueError, match=REFUSED[name]):
        example(name).connect(*probes)


@pytest.mark.parametrize("name", TAKEN)
def test_every_other_path_connects_on_meta(name: str, probes: list[Probe]) -> None:
    path = example(name)
    with torch.device("meta"):
        path.connect(*probes)
    assert path.layers
    assert all(parameter.is_meta for parameter in path.parameters() if name != "CurriculumTemperature")


@pytest.mark.parametrize("options", [{}, EXAMPLES], ids=["as they start", "as the student learns"])
def test_one_step_of_all_of_them(options: dict[str, dict[str, Any]]) -> None:
    kinds = {name: getattr(paths, name) for name in TAKEN}
    for non_negative, aggregator in ((True, Adaptive()), (False, Equal())):
        chosen = {n: k(**options.get(n, {})) for n, k in kinds.items() if k.non_negative == non_negative}
        teacher = Teacher(make_teacher(), TASK)
        sample = images()[:2]
        distiller = Distiller(make_student(), teacher, chosen, aggregator, TASK, sample=sample, samples=SAMPLES)
        distiller.train()
        distiller.advance(0.5 if options else 0.0)
        step = distiller(batch(), distiller.targets(teacher(images())))
        step.total.backward()
        assert torch.isfinite(step.layers).all(), dict(zip(distiller.layer_keys, step.layers.tolist(), strict=True))
        assert (step.layers > 0).all() or not non_negative
        gradients = {name: parameter.grad for name, parameter in distiller.student.named_parameters()}
        assert all(gradient is not None and torch.isfinite(gradient).all() for gradient in gradients.values())


@pytest.mark.parametrize("name", TAKEN)
def test_each_reaches_the_student(name: str) -> None:
    path = getattr(paths, name)(**EXAMPLES.get(name, {}))
    teacher = Teacher(make_teacher(), TASK)
    distiller = Distiller(make_student(), teacher, {"it": path}, Equal(), TASK, sample=images()[:2], samples=SAMPLES)
    distiller.train()
    distiller.advance(0.5)
    step = distiller(batch(), distiller.targets(teacher(images())))
    parameters = [parameter for parameter in distiller.student.backbone.parameters() if parameter.requires_grad]
    gradients = torch.autograd.grad(step.layers.sum(), parameters, allow_unused=True)
    found = [gradient for gradient in gradients if gradient is not None]
    assert all(torch.isfinite(gradient).all() for gradient in found)
    assert any(gradient.any() for gradient in found)
