"""What looks at gradients, on detectors: no path is out of sight because its objects are small."""

from __future__ import annotations

from collections.abc import Mapping

import pytest
import torch
from detector_samples import make, scenes

from distill.aggregators import Equal
from distill.aggregators.modifiers import CosineGate
from distill.distiller import Distiller
from distill.gradient_scope import Scope
from distill.paths import CWD, BoxOffsets, Path, RegionLogits
from distill.tasks import Detection
from distill.teacher import Teacher

TASK = Detection()


def distiller_of(family: str, paths: Mapping[str, Path]) -> tuple[Distiller, Teacher]:
    teacher = Teacher(make(family, seed=5, width=12), TASK)
    aggregator = Equal(modifiers=[CosineGate("taps", every=1, wait=1), CosineGate("last", every=1, wait=1)])
    return Distiller(make(family, seed=6), teacher, paths, aggregator, TASK, sample=scenes(2).images).train(), teacher


@pytest.mark.parametrize(
    ("family", "paths"),
    [("SSD", {"maps": CWD(), "boxes": BoxOffsets()}), ("FasterRCNN", {"regions": RegionLogits(number=16)})],
)
def test_gates_see_all_levels(family: str, paths: Mapping[str, Path]) -> None:
    """No object of these scenes is of the coarsest level: at that one alone the gradients are zero."""
    distiller, teacher = distiller_of(family, paths)
    batch = scenes(3, empty=(1,))
    distiller.advance(0.0)
    distiller(batch, distiller.targets(teacher(batch.images)))
    for modifier in distiller.aggregator.modifiers:
        assert isinstance(modifier, CosineGate)
        assert modifier._looks.tolist() == [1] * len(paths)


@pytest.mark.parametrize("scope", ["taps", "last"])
def test_products_are_those_of_all_levels_or_all_of_the_neck(scope: Scope) -> None:
    distiller, teacher = distiller_of("FasterRCNN", {"regions": RegionLogits(number=16)})
    batch, path = scenes(2), distiller.path("regions")
    targets = distiller.targets(teacher(batch.images))
    torch.manual_seed(3)
    products = distiller(batch, targets, look=scope).products
    torch.manual_seed(3)
    output = TASK.run(distiller.student, batch.images)
    parts = TASK.outputs(output)
    places = [parts[f":level{number}"] for number in range(3)]
    if scope == "last":
        places = list(distiller.student.backbone.fpn.parameters())
    task = torch.autograd.grad(TASK.loss(output, batch), places, retain_graph=True)
    losses = path(parts, targets["regions"], batch)
    own = torch.autograd.grad(losses["classes"] + losses["boxes"], places)
    pairs = ((own, task), (task, task), (own, own))
    wanted = [sum((a.double() * b.double()).sum() for a, b in zip(*pair, strict=True)) for pair in pairs]
    assert products is not None
    torch.testing.assert_close(products[0], torch.stack(wanted), rtol=1e-3, atol=1e-12)
