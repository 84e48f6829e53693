"""Whole segmentation and detection runs on two ranks: they stay alike, and measure what one process measures."""

import pytest
import torch
from dense_scene import CPU, SEGMENTATION, DenseScene
from on_ranks import on_ranks
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from distill import distributed
from distill.aggregators import Adaptive
from distill.evaluate import evaluate
from distill.host import LocalHost
from distill.optimization import optimizer_maker
from distill.paths import FGD, PKD, RegionLogits, SoftTarget
from distill.trainer import Recipe

RECIPE = Recipe(2, optimizer_maker(torch.optim.SGD, {"lr": 0.002, "momentum": 0.9}), log_every=1, clip_norm=1.0)
FAMILIES = (SEGMENTATION, "SSD", "FasterRCNN")


class Rank(LocalHost):
    """One of two gloo ranks."""

    world_size = 2

    def __init__(self, rank):
        super().__init__(CPU)
        self.rank = rank

    def prepare(self, module, *, find_unused_parameters):
        self.finds_unused = find_unused_parameters
        return DistributedDataParallel(module, find_unused_parameters=find_unused_parameters)


def kinds_of(family):
    kinds = {"levels": PKD(), "answers": SoftTarget()}
    return kinds | {"objects": FGD(), "regions": RegionLogits(number=8)} if family == "FasterRCNN" else kinds


class Sometimes(nn.Module):
    """A student with a parameter that one rank's images leave out, as a head for objects may where there are none."""

    def __init__(self, model):
        super().__init__()
        self.backbone, self.model, self.scale = model.backbone, model, nn.Parameter(torch.ones(()))

    def forward(self, images):
        output = self.model(images)
        return output if distributed.rank() else {"out": output["out"] * self.scale, "aux": output["aux"]}


class Alone(Rank):
    def prepare(self, module, *, find_unused_parameters):
        self.finds_unused = find_unused_parameters
        return module


class SometimesScene(DenseScene):
    def student(self):
        return Sometimes(super().student())


def finds_unused(rank):
    host = Alone(rank)
    SometimesScene(SEGMENTATION).trainer(RECIPE, kinds={}, host=host)
    return host.finds_unused


def run(rank):
    found = {"sometimes": finds_unused(rank)}
    for family in FAMILIES:
        host = Rank(rank)
        trainer, _ = DenseScene(family).trainer(RECIPE, kinds=kinds_of(family), aggregator=Adaptive(), host=host)
        result = trainer.run()
        steps = trainer.trajectory.table()
        found[family] = {
            "validation": result["validation"],
            "finds_unused": host.finds_unused,
            "total": steps["total/loss"].to_pylist(),
            "student": trainer.distiller.student.state_dict(),
            "shares": [batch.indices for batch in trainer.loaders.validation.epoch(0)],
        }
    return found


@pytest.fixture(scope="module")
def ranks(tmp_path_factory):
    return on_ranks(run, tmp_path_factory.mktemp("ranks"))


@pytest.mark.parametrize("family", FAMILIES)
def test_ranks_stay_alike_and_no_parameter_is_unused(ranks, family):
    first, second = (each[family] for each in ranks)
    assert not first["finds_unused"]
    assert first["total"] == second["total"]
    assert first["validation"] == second["validation"]
    for name, value in first["student"].items():
        assert torch.equal(value, second["student"][name]), name


@pytest.mark.parametrize("family", FAMILIES)
def test_each_image_is_measured_once_and_as_in_one_process(ranks, family):
    """Five images in batches of four: the second rank's last share is empty."""
    shares = [torch.cat(each[family]["shares"]).tolist() for each in ranks]
    scene = DenseScene(family)
    loader = scene.loaders().validation
    assert sorted(shares[0] + shares[1]) == loader.subset.indices.tolist()
    student = scene.student()
    student.load_state_dict(ranks[0][family]["student"])
    alone = evaluate(student, loader, scene.task, classes=tuple(loader.subset.source.classes))
    found = ranks[0][family]["validation"]
    assert {name: found[name] for name in alone} == pytest.approx(alone, rel=1e-4)


def test_what_one_rank_leaves_out_all_are_told(ranks):
    """The first batch decides, and DDP on one rank must not wait for what another never sends."""
    assert [each["sometimes"] for each in ranks] == [True, True]
