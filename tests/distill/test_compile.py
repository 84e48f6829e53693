"""A distiller is one graph for torch.compile, traced once: hooks, paths and aggregator break nothing."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from classifier_paths import ON_CLASSIFIERS
from torch._dynamo.testing import CompileCounterWithBackend

from distill import paths
from distill.aggregators import Adaptive, Equal, LogSum
from distill.aggregators.modifiers import Bound, Normalize, Ramp
from distill.batch import Batch, Samples
from distill.distiller import Distiller
from distill.models import ResNet8
from distill.tasks import Classification
from distill.teacher import Teacher

IMAGES = torch.randn(4, 3, 16, 16, generator=torch.Generator().manual_seed(0))
BATCH = Batch(IMAGES, torch.arange(4), torch.arange(4))


NON_NEGATIVE = [name for name in ON_CLASSIFIERS if getattr(paths, name).non_negative]
OTHERS = [name for name in ON_CLASSIFIERS if name not in NON_NEGATIVE]
FEW = ["AttentionTransfer", "FT", "NSTGram", "SoftTarget"]  # FT has two phases


def make(names: list[str]) -> tuple[Distiller, dict[str, Any]]:
    torch.manual_seed(0)
    task = Classification()
    teacher = Teacher(ResNet8(num_classes=4, width=16), task)
    every = {name: getattr(paths, name)() for name in names}
    aggregator = Equal() if names == OTHERS else Adaptive()  # the latter refuses what can be negative
    distiller = Distiller(
        ResNet8(num_classes=4, width=8),
        teacher,
        every,
        aggregator,
        task,
        sample=IMAGES[:2],
        samples=Samples(BATCH.indices, BATCH.labels),
    )
    return distiller.train(), distiller.targets(teacher(IMAGES))


@pytest.fixture(autouse=True)
def _fresh():
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    "names",
    [
        pytest.param(FEW, id="few"),
        pytest.param(NON_NEGATIVE, id="non-negative", marks=pytest.mark.slow),
        pytest.param(OTHERS, id="others"),
    ],
)
def test_a_distiller_compiles_to_one_graph_once_and_computes_the_same(names):
    distiller, targets = make(names)
    other, _ = make(names)
    counter = CompileCounterWithBackend("aot_eager")
    compiled = torch.compile(other, backend=counter, fullgraph=True)
    for progress in (0.0, 0.25, 0.5, 1.0):
        for each in (distiller, other):
            each.advance(progress)
        torch.manual_seed(0)  # paths that draw numbers draw the same ones
        wanted = distiller(BATCH, targets)
        torch.manual_seed(0)
        found = compiled(BATCH, targets)
        for value, expected in zip(found, wanted, strict=True):
            torch.testing.assert_close(value, expected)
        for module, step in ((distiller, wanted), (other, found)):
            module.zero_grad()
            step.total.backward()
    num_phases = 2 if "FT" in distiller.layers else 1
    assert counter.frame_count == num_phases
    for value, expected in zip(other.parameters(), distiller.parameters(), strict=True):
        torch.testing.assert_close(value.grad, expected.grad, rtol=1e-4, atol=1e-6)
    for value, expected in zip(other.buffers(), distiller.buffers(), strict=True):
        torch.testing.assert_close(value, expected)


@pytest.mark.filterwarnings("ignore")
def test_modifiers_that_look_at_no_gradients_are_part_of_the_one_graph():
    def modified():
        torch.manual_seed(0)
        teacher = Teacher(ResNet8(num_classes=4, width=16), Classification())
        modifiers = [Bound(0.9, growth=1.01, over=2), Ramp(shape="cosine"), Normalize(0.5)]
        kinds = {"at": paths.AttentionTransfer(), "kd": paths.SoftTarget()}
        aggregator = LogSum("layer", modifiers=modifiers)
        sample = IMAGES[:2]
        distiller = Distiller(
            ResNet8(num_classes=4, width=8), teacher, kinds, aggregator, Classification(), sample=sample
        )
        return distiller.train(), distiller.targets(teacher(IMAGES))

    (distiller, targets), (other, _) = modified(), modified()
    counter = CompileCounterWithBackend("aot_eager")
    compiled = torch.compile(other, backend=counter, fullgraph=True)
    for progress in (0.0, 0.25, 0.5, 0.9):
        for each in (distiller, other):
            each.advance(progress)
        for value, expected in zip(compiled(BATCH, targets), distiller(BATCH, targets), strict=True):
            torch.testing.assert_close(value, expected)
    assert counter.frame_count == 1
    for value, expected in zip(other.buffers(), distiller.buffers(), strict=True):
        torch.testing.assert_close(value, expected)
