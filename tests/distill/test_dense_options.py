"""How a training is told to compute, on segmentation and detection: layouts, precision, accumulation, compiling."""

import dataclasses
import math

import pytest
import torch
from dense_scene import DETECTORS, FAMILIES, NUM_TRAIN, SEGMENTATION, DenseScene
from torch._dynamo.testing import CompileCounterWithBackend

from distill.aggregators import Adaptive
from distill.optimization import optimizer_maker
from distill.paths import IFVD, PKD, SoftTarget
from distill.trainer import Recipe

RECIPE = Recipe(2, optimizer_maker(torch.optim.SGD, {"lr": 0.002}), log_every=1)


def few():
    return {"levels": PKD(), "answers": SoftTarget()}


@pytest.mark.parametrize("family", FAMILIES)
def test_all_options_at_once(family):
    recipe = dataclasses.replace(RECIPE, accumulate=3, clip_norm=0.5)
    scene = DenseScene(family, layout=True, precision="bfloat16")
    trainer, _ = scene.trainer(recipe, kinds=few(), aggregator=Adaptive())
    before = [value.clone() for value in trainer.distiller.student.parameters()]
    result = trainer.run()
    assert result["steps"] == 2  # three batches of an epoch are one step
    assert all(math.isfinite(value) for value in result["validation"].values())
    assert next(iter(trainer.loaders.train.epoch(0))).images.is_contiguous(memory_format=torch.channels_last)
    moved = [old - new.detach() for old, new in zip(before, trainer.distiller.student.parameters(), strict=True)]
    assert all(each.dtype == torch.float32 for each in moved)
    norm = torch.cat([each.flatten() for each in moved]).norm().item()
    assert 0 < norm <= 2 * 0.002 * 0.5 * 1.001  # two clipped steps of plain SGD


@pytest.mark.parametrize("family", [SEGMENTATION, "SSD"])
def test_accumulated_gradients_are_the_mean_of_the_batches(family):
    recipe = dataclasses.replace(RECIPE, epochs=1, accumulate=3)
    scene = DenseScene(family)
    trainer, _ = scene.trainer(recipe, kinds=few())
    other, _ = scene.trainer(RECIPE, kinds=few())
    batches = list(other.loaders.train.epoch(0))
    assert len(batches) == NUM_TRAIN // 4
    other.distiller.train().advance(0.0)
    for model in (trainer.distiller, other.distiller):
        for module in model.modules():
            if isinstance(module, torch.nn.Dropout):
                module.p = 0.0
    for batch in batches:
        (other.distiller(batch, other.targets.targets(batch)).total / 3).backward()
    with torch.no_grad():
        expected = [value - 0.002 * value.grad for value in other.distiller.student.parameters()]
    trainer.run()
    for found, wanted in zip(trainer.distiller.student.parameters(), expected, strict=True):
        torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-7)


@pytest.fixture
def _fresh():
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


@pytest.mark.filterwarnings("ignore")
@pytest.mark.usefixtures("_fresh")
def test_segmentation_compiles_to_one_graph_and_computes_the_same():
    scene = DenseScene(SEGMENTATION)
    kinds = lambda: few() | {"classes": IFVD()}  # noqa: E731
    teacher = scene.teacher()
    plain, other = scene.distiller(teacher, kinds()), scene.distiller(scene.teacher(), kinds())
    counter = CompileCounterWithBackend("eager")
    compiled = torch.compile(other, backend=counter, fullgraph=True)
    for epoch in range(2):
        for batch in scene.loader().epoch(epoch):
            targets = plain.targets(teacher(batch.images))
            steps = []
            for module in (plain, compiled):
                torch.manual_seed(0)
                steps.append(module(batch, targets))
            torch.testing.assert_close(steps[1].total, steps[0].total)
    assert counter.frame_count == 1


@pytest.mark.parametrize("family", DETECTORS)
def test_detection_is_not_compiled(family):
    message = "compile must be false with Detection, whose loss depends on the number of objects, .*; found true"
    with pytest.raises(ValueError, match=message):
        DenseScene(family).trainer(dataclasses.replace(RECIPE, compile=True), kinds=few())
