"""Training from the store gives what the live teacher gives, to the last bit."""

import dataclasses

import numpy as np
import pytest
import torch
from target_scene import CPU, all_paths

from distill.aggregators import Adaptive, Equal
from distill.data.loaders import Loaders
from distill.host import LocalHost
from distill.optimization import optimizer_maker
from distill.paths import LogitPath
from distill.paths.pooled import PooledPath
from distill.targets import TargetSource, path_column
from distill.trainer import Recipe, Trainer

RECIPE = Recipe(epochs=3, optimizer=optimizer_maker(torch.optim.SGD, {"lr": 0.05, "momentum": 0.9}), log_every=1)


def train(scene, *, stored, paths=None, views=None, epochs=3, aggregator=None, **options):
    teacher = scene.teacher()
    distiller = scene.distiller(teacher, paths=paths, aggregator=aggregator or Equal())
    loaders = Loaders(
        scene.loader(views=views), scene.loader(40, 50, training=False), scene.loader(50, 60, training=False)
    )
    source = scene.stored(teacher, **options) if stored else None
    targets = TargetSource(distiller, teacher, source, list(distiller.layers) if stored is True else stored or ())
    recipe = dataclasses.replace(RECIPE, epochs=epochs)
    trainer = Trainer(distiller, teacher, loaders, recipe, LocalHost(CPU), classes=tuple("0123"), targets=targets)
    result = trainer.run()
    return trainer, result, 0 if source is None else source.num_asked


def assert_equal_runs(one, other):
    for name, value in one[0].distiller.state_dict().items():
        assert torch.equal(value, other[0].distiller.state_dict()[name]), name
    assert one[0].trajectory.table().equals(other[0].trajectory.table())
    assert {**one[1], "minutes": 0} == {**other[1], "minutes": 0}


@pytest.fixture(autouse=True)
def deterministic():
    torch.use_deterministic_algorithms(True)
    yield
    torch.use_deterministic_algorithms(False)


@pytest.mark.parametrize("aggregator", [Equal, Adaptive])
def test_stored_equals_live_bit_for_bit(scene, aggregator):
    live = train(scene, stored=False, aggregator=aggregator())
    filled = train(scene, stored=True, aggregator=aggregator())
    read = train(scene, stored=True, aggregator=aggregator())
    assert filled[2] == 3 * 40 + 10 + 10  # three views of the training split, both others once
    assert read[2] == 0
    assert_equal_runs(live, filled)
    assert_equal_runs(live, read)


def test_a_live_path_beside_stored_ones_changes_nothing(scene):
    assert_equal_runs(train(scene, stored=False), train(scene, stored=["SoftTarget", "NSTGram"]))


def test_half_precision_is_not_exact(scene):
    """The control: the comparison above would notice a rounding."""
    paths = {name: all_paths()[name] for name in ("SoftTarget", "AttentionTransfer", "NSTGram", "FeatureMap")}
    live = train(scene, stored=False, paths=paths)
    half = train(scene, stored=True, paths={name: all_paths()[name] for name in paths}, precision="float16")
    assert not torch.equal(live[0].distiller.student.fc.weight, half[0].distiller.student.fc.weight)
    torch.testing.assert_close(
        live[0].distiller.student.fc.weight, half[0].distiller.student.fc.weight, atol=0.02, rtol=0.1
    )


def test_views_cycle_with_and_without_a_store(scene):
    live = train(scene, stored=False, views=2, epochs=4)
    stored = train(scene, stored=True, views=2, epochs=4)
    assert stored[2] == 2 * 40 + 20
    assert_equal_runs(live, stored)


def test_without_augmentation_one_view_serves_all_epochs(scene):
    teacher = scene.teacher()
    stored, distiller = scene.stored(teacher), scene.distiller(teacher)
    loader = scene.loader(transforms=())
    columns = [path_column("AttentionTransfer", distiller.path("AttentionTransfer"))]
    for epoch in range(3):
        assert stored.open(columns, loader, epoch, precision="float32") is not None
    assert stored.num_asked == 40


@pytest.mark.parametrize("name", sorted(all_paths()))
def test_a_stored_target_equals_the_live_one(scene, name):
    """Every path of the family that says its target can be stored."""
    teacher = scene.teacher()
    distiller = scene.distiller(teacher)
    loader = scene.loader()
    mapped = scene.stored(teacher).open([path_column(name, distiller.path(name))], loader, 1, precision="float32")
    for positions in loader.shares(1):
        batch = loader.batch_at(positions, 1)
        live = distiller.targets(teacher(batch.images))[name]
        read = mapped.read(positions)[name]
        assert live.keys() == read.keys()
        assert all(torch.equal(live[layer], read[layer]) for layer in live)


SAME = (
    {name for name, path in all_paths().items() if isinstance(path, LogitPath)},
    {name for name, path in all_paths().items() if isinstance(path, PooledPath)},
    {"AttentionTransfer", "AttentionTransferNorm"},
    {"Affinity", "FT", "KTA", "MGD"},  # the last map as it is
    {"NSTPolynomial", "VID"},  # all maps as they are
    *({name} for name in ("AB", "FSP", "FeatureMap", "NSTGram", "OFD", "SP")),
)
"""Paths that ask the teacher the very same, each set another question."""


def test_paths_that_want_the_same_share_one_column(scene):
    distiller = scene.distiller(scene.teacher())
    digests = [{path_column(name, distiller.path(name)).digest for name in names} for names in SAME]
    assert [len(each) for each in digests] == [1] * len(SAME)
    assert len(set.union(*digests)) == len(SAME)


def test_the_teacher_runs_no_deeper_than_the_live_paths_need(scene):
    teacher = scene.teacher()
    distiller = scene.distiller(teacher, paths={"AttentionTransfer": all_paths()["AttentionTransfer"]})
    ran = []
    for name, module in teacher.model.named_modules():
        module.register_forward_pre_hook(lambda *call, name=name: ran.append(name))
    batch = scene.loader().batch_at(np.arange(8), 0)
    TargetSource(distiller, teacher).targets(batch)
    deepest = distiller.path("AttentionTransfer").pairs[-1].teacher
    assert deepest in ran
    assert "fc" not in ran
