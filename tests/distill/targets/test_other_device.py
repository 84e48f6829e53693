"""Trainings on a device beside the CPU: no tensor is left behind, and the bits are those of the CPU."""

import dataclasses

import pytest
import torch
from dense_scene import FAMILIES, SEGMENTATION, DenseScene
from other_device import other_device
from target_scene import all_paths
from torch import Tensor

from distill.aggregators import FAMO, Adaptive, Equal, GradientBalance, GradNorm, LogSum
from distill.aggregators.modifiers import CosineGate
from distill.data.loaders import Loaders
from distill.diagnosis import Diagnosis
from distill.host import LocalHost
from distill.optimization import optimizer_maker
from distill.paths import AttentionTransfer, SoftTarget
from distill.targets import LocalShards, TargetSource
from distill.trainer import Recipe, Trainer

SGD = optimizer_maker(torch.optim.SGD, {"lr": 0.001, "momentum": 0.9})
RECIPE = Recipe(1, SGD, log_every=1, clip_norm=1.0)
AGGREGATORS = {
    "adaptive": lambda: Adaptive(max_weight=None),
    "layer-wise": lambda: LogSum("layer"),
    "looking again": FAMO,
    "by gradients": lambda: GradNorm(every=1, include_task=True),
    "by gradients, last": lambda: GradientBalance("PCD", {"tau": 0.1}),
    "gated in taps": lambda: LogSum(modifiers=[CosineGate("taps")]),
    "gated in last": lambda: LogSum(modifiers=[CosineGate("last")]),
    "gated in all": lambda: LogSum(modifiers=[CosineGate("all")]),
}


def outcome(trainer):
    """Return all that a training leaves, its tensors on the CPU."""
    result = trainer.run()
    state = {name: value.cpu() for name, value in trainer.distiller.state_dict().items() if isinstance(value, Tensor)}
    return state, trainer.trajectory.table(), {**result, "minutes": 0}


def assert_equal(here, there):
    for name, value in here[0].items():
        assert torch.equal(value, there[0][name]), name
    assert here[1].equals(there[1])
    assert here[2] == there[2]


def test_such_a_device_refuses_what_a_gpu_refuses():
    with other_device() as device:
        values, mask = torch.arange(4.0), torch.tensor([True, False, True, False])
        far = values.to(device)
        assert far.device == device
        assert (2 * far[[0, 2]].sum() + torch.tensor(1.0)).item() == 5
        assert far[mask].cpu().tolist() == far[mask.to(device)].tolist() == [0, 2]
        with pytest.raises(RuntimeError, match="all tensors on one device"):
            far + values
        with pytest.raises(RuntimeError, match="all tensors on one device"):
            far[mask] = values[:2]
        with pytest.raises(TypeError, match="numpy"):
            far.numpy()
        weight = torch.ones(4, device=device, requires_grad=True)
        (weight * far).sum().backward()
        assert weight.grad.device == device
        assert weight.grad.tolist() == [0, 1, 2, 3]


@pytest.mark.parametrize("family", FAMILIES)
def test_dense_trainings_with_every_path(family):
    scene = DenseScene(family)
    here = outcome(scene.trainer(RECIPE)[0])
    with other_device() as device:
        there = outcome(dataclasses.replace(scene, device=device).trainer(RECIPE)[0])
    assert_equal(here, there)


def test_a_dense_training_from_the_store(tmp_path):
    kinds = {"attention": AttentionTransfer, "soft_target": SoftTarget}
    scene = DenseScene(SEGMENTATION, layout=True)
    made = {name: make() for name, make in kinds.items()}
    here = outcome(scene.trainer(RECIPE, kinds=made, store=LocalShards(tmp_path / "here"))[0])
    with other_device() as device:
        scene = dataclasses.replace(scene, device=device)
        for _ in range(2):  # what is written on the device is read there
            made = {name: make() for name, make in kinds.items()}
            assert_equal(here, outcome(scene.trainer(RECIPE, kinds=made, store=LocalShards(tmp_path / "there"))[0]))


def classifiers(scene, names=("AttentionTransfer", "SoftTarget"), aggregator=None, diagnosis=None):
    paths = {name: path for name, path in all_paths().items() if name in names}
    teacher = scene.teacher()
    distiller = scene.distiller(teacher, paths=paths, aggregator=aggregator or Equal())
    loaders = Loaders(scene.loader(), scene.loader(40, 50, training=False), scene.loader(50, 60, training=False))
    recipe = dataclasses.replace(RECIPE, diagnosis=diagnosis)
    targets = TargetSource(distiller, teacher, None, list(distiller.layers))
    return Trainer(distiller, teacher, loaders, recipe, LocalHost(scene.device), classes=tuple("0123"), targets=targets)


def test_classifiers_with_every_path(scene):
    names = all_paths().keys() - {"ReviewKD"}
    here = outcome(classifiers(scene, names, diagnosis=Diagnosis(every=2, scope="all")))
    with other_device() as device:
        there = dataclasses.replace(scene, device=device)
        assert_equal(here, outcome(classifiers(there, names, diagnosis=Diagnosis(every=2, scope="all"))))


def test_review_kd_whose_gradients_add_up_in_another_order(scene):
    here, _, result = outcome(classifiers(scene, ["ReviewKD"]))
    with other_device() as device:
        there, _, other = outcome(classifiers(dataclasses.replace(scene, device=device), ["ReviewKD"]))
    torch.testing.assert_close(here, there, rtol=1e-5, atol=1e-6)
    assert result["validation"]["loss"] == pytest.approx(other["validation"]["loss"], rel=1e-4)


@pytest.mark.parametrize("name", AGGREGATORS)
def test_aggregators_that_look_at_more_than_losses(name, scene):
    here = outcome(classifiers(scene, aggregator=AGGREGATORS[name]()))
    with other_device() as device:
        there = dataclasses.replace(scene, device=device)
        assert_equal(here, outcome(classifiers(there, aggregator=AGGREGATORS[name]())))
