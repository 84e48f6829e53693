"""Segmentation and detection from the store are what they are with the live teacher, to the last bit."""

import pytest
import torch
from dense_scene import FAMILIES, NUM_IMAGES, NUM_TRAIN, SEGMENTATION, DenseScene

from distill.aggregators import Adaptive
from distill.optimization import optimizer_maker
from distill.paths import FGD, PKD, AttentionTransfer, RegionLogits, SoftTarget
from distill.targets import LocalShards
from distill.trainer import Recipe

NUM_HELD_OUT = NUM_IMAGES - NUM_TRAIN
SGD = optimizer_maker(torch.optim.SGD, {"lr": 0.001, "momentum": 0.9})
FEW = {
    SEGMENTATION: lambda: {"attention": AttentionTransfer(), "soft_target": SoftTarget()},
    "FasterRCNN": lambda: {"levels": PKD(), "objects": FGD(), "regions": RegionLogits(number=8)},
}


@pytest.fixture(autouse=True)
def deterministic():
    torch.use_deterministic_algorithms(True)
    yield
    torch.use_deterministic_algorithms(False)


def run(scene, *, epochs=2, **options):
    trainer, stored = scene.trainer(Recipe(epochs, SGD, log_every=1, clip_norm=1.0), **options)
    result = trainer.run()
    return trainer, result, 0 if stored is None else stored.num_asked


def assert_equal_runs(one, other):
    for name, value in one[0].distiller.state_dict().items():
        assert torch.equal(value, other[0].distiller.state_dict()[name]), name
    assert one[0].trajectory.table().equals(other[0].trajectory.table())
    assert {**one[1], "minutes": 0} == {**other[1], "minutes": 0}


@pytest.mark.parametrize("family", FAMILIES)
def test_stored_equals_live_bit_for_bit_with_every_path(family, tmp_path):
    scene = DenseScene(family)
    live, filled = run(scene), run(scene, store=LocalShards(tmp_path))
    assert filled[2] == 2 * NUM_TRAIN + (NUM_HELD_OUT if family == SEGMENTATION else 0)
    assert_equal_runs(live, filled)


@pytest.mark.parametrize("family", FEW)
def test_views_in_half_precision_read_from_the_store(family, tmp_path):
    scene, store = DenseScene(family, layout=True, precision="bfloat16"), LocalShards(tmp_path)
    live, filled, read = (
        run(scene, epochs=3, views=2, kinds=FEW[family](), aggregator=Adaptive(), store=each)
        for each in (None, store, store)
    )
    assert filled[2] == 2 * NUM_TRAIN + (NUM_HELD_OUT if family == SEGMENTATION else 0)
    assert read[2] == 0
    assert_equal_runs(live, filled)
    assert_equal_runs(live, read)


def test_stored_answers_are_the_teachers_of_each_batch(tmp_path):
    """What agreement is measured by, whole and at the right images, the last and smaller batch included."""
    scene = DenseScene(SEGMENTATION)
    trainer, _ = scene.trainer(Recipe(1, SGD), kinds=FEW[SEGMENTATION](), store=LocalShards(tmp_path))
    teacher = scene.teacher().model
    for loader in (trainer.loaders.validation, trainer.loaders.test):
        answers, batches = trainer.targets.answers(loader), list(loader.epoch(0))
        assert len(batches[-1]) < loader.batch_size
        for batch, answer in zip(batches, answers, strict=True):
            with torch.no_grad():
                assert torch.equal(answer.long(), teacher(batch.images)["out"].argmax(1))
