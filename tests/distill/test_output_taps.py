"""What a task shows of a model's output: parts read beside the taps, and a pyramid in the place of the stages."""

import pytest
import torch
from torch import nn

from distill.aggregators import Equal
from distill.batch import Batch
from distill.distiller import Distiller
from distill.paths import AttentionTransfer, Logits
from distill.taps import OUTPUT, Head, pair_named, pair_stages
from distill.tasks import Task
from distill.teacher import Teacher

IMAGES = torch.rand(3, 3, 16, 16)


class Pyramid(nn.Module):
    """Two levels and scores of every place; its forward pass is never called by the task."""

    def __init__(self, width=4):
        super().__init__()
        self.fine = nn.Conv2d(3, width, 3, stride=2, padding=1)
        self.coarse = nn.Conv2d(width, width, 3, stride=2, padding=1)
        self.scores = nn.Conv2d(width, 5, 1)

    def forward(self, images):
        raise AssertionError("the task runs the model itself")


class Scoring(Task):
    """Scores every place of both levels."""

    metric = "loss"
    metrics_known = ("loss",)

    def run(self, model, images):
        fine = model.fine(images)
        levels = [fine, model.coarse(fine.relu())]
        scores = torch.cat([model.scores(level).flatten(2) for level in levels], dim=2)
        return {"levels": levels, "scores": scores}

    def outputs(self, output):
        return {OUTPUT: output["scores"], **{f":level{number}": level for number, level in enumerate(output["levels"])}}

    def loss(self, output, batch):
        return output["scores"].square().mean()

    def metrics(self, classes, device):
        raise NotImplementedError

    def head(self, model):
        return Head(independent=True)


def test_a_pyramid_takes_the_place_of_the_stages():
    found = Scoring().probe(Pyramid(), IMAGES)
    assert [(stage.name, stage.shape, stage.stride) for stage in found.stages] == [
        (":level0", (4, 8, 8), 2.0),
        (":level1", (4, 4, 4), 4.0),
    ]
    assert found.is_pyramid
    assert found.last.name == ":level1"
    assert found.output_shape == (5, 80)
    assert found.output_shapes == {"": (5, 80), ":level0": (4, 8, 8), ":level1": (4, 4, 4)}
    assert found.head.independent
    order = sorted(["", ":level1", ":level0", "fine"], key=found.depth)
    assert order.index("fine") < order.index(":level0") < order.index(":level1") < order.index("")


def test_parts_and_taps_are_read_together():
    task, model = Scoring(), Pyramid()
    found = task.probe(model, IMAGES)
    reader = task.reader(model, [found["fine"], found[":level1"], found[""]])
    sources = {}
    output, taps = reader(IMAGES, sources)
    assert taps["fine"] is taps[":level0"] is output["levels"][0]
    assert taps[OUTPUT] is sources[OUTPUT] is output["scores"]
    assert sources[":level1"] is output["levels"][1]
    only = reader.read(IMAGES, ["fine"])
    assert set(only) == {"fine"}
    assert {":level1", "fine"} <= set(reader.read(IMAGES, ["fine", ":level1"]))
    reader.close()


def test_paths_meet_on_levels_and_gradients_reach_them():
    task = Scoring()
    torch.manual_seed(0)
    teacher = Teacher(Pyramid(8), task)
    paths = {"attention": AttentionTransfer(), "logits": Logits()}
    distiller = Distiller(Pyramid(), teacher, paths, Equal(), task, sample=IMAGES)
    assert distiller.layers["attention"] == ("level0", "level1")
    batch = Batch(IMAGES, torch.zeros(3, dtype=torch.int64), torch.arange(3))
    step = distiller(batch, distiller.targets(teacher(IMAGES)), look="taps")
    step.total.backward()
    assert all(parameter.grad is not None for parameter in distiller.student.parameters())
    assert bool((step.products[:, 1] > 0).all())  # the task's gradient reaches the places where the paths act
    assert bool((step.products[:, 2] > 0).all())


def test_levels_can_be_named_other_parts_cannot():
    found = Scoring().probe(Pyramid(), IMAGES)
    (pair,) = pair_named(found, found, [{"student": ":level1", "teacher": ":level0"}])
    assert (pair.student, pair.teacher, pair.layer) == (":level1", ":level0", "level1")
    with pytest.raises(ValueError, match="the logits are compared by paths between logits"):
        pair_named(found, found, [{"student": "", "teacher": ":level0"}])
    assert [pair.layer for pair in pair_stages(found, found)] == ["level0", "level1"]
