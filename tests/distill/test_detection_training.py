"""Whole distillers on detectors: they learn, every parameter gets its gradient, and ranks agree."""

import pytest
import torch
from detector_samples import make, scenes
from on_ranks import on_ranks
from torch.nn.parallel import DistributedDataParallel

from distill.aggregators import Adaptive, Equal, LogSum
from distill.aggregators.modifiers import CosineGate
from distill.batch import Batch
from distill.distiller import Distiller
from distill.objects import Objects
from distill.paths import PKD, AttentionTransfer, BoxOffsets, Logits, RegionLogits, SoftTarget
from distill.tasks import Detection
from distill.teacher import Teacher

TASK = Detection()
PATHS = {
    "RetinaNet": lambda: {
        "attention": AttentionTransfer(),
        "pearson": PKD(),
        "classes": SoftTarget(),
        "boxes": BoxOffsets(),
    },
    "FCOS": lambda: {"attention": AttentionTransfer(), "classes": Logits()},
    "SSD": lambda: {"attention": AttentionTransfer(), "classes": SoftTarget()},
    "FasterRCNN": lambda: {"pearson": PKD(), "regions": RegionLogits(number=16)},
}
AGGREGATORS = {
    "adaptive": Adaptive,
    "log-sum, gated at the taps": lambda: LogSum("layer", modifiers=[CosineGate("taps", every=1, wait=1)]),
    "log-sum, gated in the last": lambda: LogSum(modifiers=[CosineGate("last", every=1, wait=1)]),
}


def distiller_of(family, aggregator, paths=None, precision="float32"):
    teacher, student = make(family, seed=5, width=12), make(family, seed=6)
    for parameter in teacher.parameters():
        parameter.requires_grad_(False)
    teacher = Teacher(teacher, TASK)
    paths = PATHS[family]() if paths is None else paths
    sample = scenes(2).images
    return Distiller(student, teacher, paths, aggregator, TASK, sample=sample, precision=precision), teacher


def trained(distiller, teacher, batches, steps):
    optimizer = torch.optim.SGD(distiller.parameters(), lr=0.01, momentum=0.9)
    totals = []
    for number in range(steps):
        distiller.advance(number / steps)
        batch = batches[number % len(batches)]
        step = distiller(batch, distiller.targets(teacher(batch.images)))
        optimizer.zero_grad()
        step.total.backward()
        torch.nn.utils.clip_grad_norm_(distiller.parameters(), 5.0)
        optimizer.step()
        totals.append((step.task.item(), step.layers.tolist()))
    return totals


@pytest.mark.parametrize("aggregator", AGGREGATORS)
def test_task_and_paths_are_learned(aggregator):
    distiller, teacher = distiller_of("RetinaNet", AGGREGATORS[aggregator]())
    assert distiller.layers["attention"] == ("level0", "level1", "level2")
    totals = trained(distiller.train(), teacher, [scenes(4, empty=(2,))], steps=16)
    (task, layers), (last_task, last_layers) = totals[0], totals[-1]
    assert last_task < 0.8 * task
    assert sum(last_layers) < sum(layers)
    missing = [name for name, value in distiller.student.named_parameters() if value.grad is None]
    assert missing == []


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("family", ["FCOS", "SSD", "FasterRCNN"])
def test_every_family_takes_a_step(family, precision):
    distiller, teacher = distiller_of(family, Adaptive(), precision=precision)
    before = [parameter.detach().clone() for parameter in distiller.student.backbone.parameters()]
    ((task, layers), *_) = trained(distiller.train(), teacher, [scenes(3, empty=(1,))], steps=2)
    assert task > 0
    assert all(value > 0 for value in layers)
    assert all(not old.equal(new) for old, new in zip(before, distiller.student.backbone.parameters(), strict=True))
    assert all(parameter.grad is not None for parameter in distiller.student.parameters())


def part(rank):
    whole = scenes(4, empty=(3,))
    rows = [2 * rank, 2 * rank + 1]
    labelled = list(zip(whole.labels.boxes, whole.labels.labels, whole.labels.ignored, strict=True))
    return Batch(whole.images[rows], Objects.of([labelled[row] for row in rows]), whole.indices[rows])


def gradients(family, rank, wrap=lambda distiller: distiller):
    distiller, teacher = distiller_of(family, Equal(), {"attention": AttentionTransfer()})
    batch = part(rank)
    module = wrap(distiller.train())
    torch.manual_seed(rank)
    module(batch, distiller.targets(teacher(batch.images))).total.backward()
    return [parameter.grad for parameter in distiller.student.parameters()]


def measure(rank):
    return {family: gradients(family, rank, DistributedDataParallel) for family in ("RetinaNet", "FasterRCNN")}


def test_ranks_agree_on_the_mean_of_their_gradients(tmp_path):
    first, second = on_ranks(measure, tmp_path)
    for family, found in first.items():
        shares = [gradients(family, rank) for rank in (0, 1)]
        for ours, theirs, *each in zip(found, second[family], *shares, strict=True):
            assert torch.equal(ours, theirs)
            torch.testing.assert_close(ours, (each[0] + each[1]) / 2, rtol=1e-4, atol=1e-6)
