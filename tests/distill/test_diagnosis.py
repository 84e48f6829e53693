"""What a run can record of its gradients."""

from __future__ import annotations

import math

import pytest
import torch
from torch.nn import functional as F

from distill.aggregators import Equal
from distill.batch import Batch
from distill.diagnosis import Diagnosis
from distill.distiller import Distiller
from distill.last_parameters import last_parameters
from distill.models import ResNet8, ResNet20
from distill.paths import AttentionTransfer, Logits
from distill.paths.base import LogitPath
from distill.recorder import Recorder
from distill.taps import probe
from distill.tasks import Classification
from distill.teacher import Teacher
from distill.trajectory import Trajectory


class AgainstTheLabels(LogitPath):
    """Planted: raises the task's loss."""

    non_negative = False

    def loss(self, student, teacher, batch):
        return -F.cross_entropy(student, batch.labels)


class WithTheLabels(LogitPath):
    """Half of the task's own loss."""

    def loss(self, student, teacher, batch):
        return F.cross_entropy(student, batch.labels) / 2


@pytest.fixture
def scene():
    torch.manual_seed(0)
    images = torch.randn(6, 1, 8, 8)
    batch = Batch(images, torch.arange(6) % 4, torch.arange(6))
    teacher = Teacher(ResNet20(num_classes=4, in_channels=1, width=8), Classification())
    paths = {
        "against": AgainstTheLabels(),
        "with": WithTheLabels(),
        "attention": AttentionTransfer(),
        "logits": Logits(),
    }
    student = ResNet8(num_classes=4, in_channels=1, width=4)
    distiller = Distiller(student, teacher, paths, Equal(), Classification(), sample=images[:2])
    return distiller, batch, distiller.targets(teacher(images))


@pytest.mark.parametrize("scope", ["taps", "last", "all"])
def test_a_planted_path_is_opposed_and_a_helpful_one_is_not(scope, scene):
    distiller, batch, targets = scene
    step = distiller(batch, targets, scope)
    assert step.products.shape == (4, 3)
    inner, task, path = step.products.double().unbind(1)
    cosines = inner / (task * path).sqrt()
    assert cosines[0].item() == pytest.approx(-1, abs=1e-5)
    assert cosines[1].item() == pytest.approx(1, abs=1e-5)
    assert (path[1] / task[1]).sqrt().item() == pytest.approx(0.5, abs=1e-5)
    assert abs(cosines[2].item()) < 1


def test_products_are_those_of_autograd(scene):
    distiller, batch, targets = scene
    products = distiller(batch, targets, "last").products
    parameters = last_parameters(distiller.student, probe(distiller.student, batch.images, lambda output: output))
    step = distiller(batch, targets)
    rows = []
    for loss in (
        step.task,
        *(sum(step.layers[columns]) for columns in (slice(0, 1), slice(1, 2), slice(2, 5), slice(5, 6))),
    ):
        found = torch.autograd.grad(loss, parameters, retain_graph=True, materialize_grads=True, allow_unused=True)
        rows.append(torch.cat([gradient.flatten() for gradient in found]))
    wanted = torch.tensor([[row @ rows[0], rows[0] @ rows[0], row @ row] for row in rows[1:]])
    torch.testing.assert_close(products.float(), wanted, rtol=1e-3, atol=1e-6)


def test_a_look_changes_nothing(scene):
    distiller, batch, targets = scene
    gradients = []
    for look in (None, "all"):
        distiller.zero_grad()
        step = distiller(batch, targets, look)
        assert all(parameter.grad is None for parameter in distiller.parameters())
        step.total.backward()
        gradients.append([parameter.grad.clone() for parameter in distiller.student.parameters()])
    for one, other in zip(*gradients, strict=True):
        assert torch.equal(one, other)


def test_looks_stand_in_the_trajectory_and_the_report(scene):
    distiller, batch, targets = scene
    recorder, trajectory = Recorder(distiller, log_every=2), Trajectory(distiller.layers)
    for number in range(4):
        step = distiller(batch, targets, "taps" if number == 1 else None)
        recorder.add(number, number / 4, step.detach())
    report = recorder.finish(trajectory, epoch=1)
    assert report["train/cosine/against"] == pytest.approx(-1, abs=1e-5)
    assert report["train/gradient/with"] == pytest.approx(0.5, abs=1e-5)
    table = trajectory.table()
    assert table["step"].to_pylist() == [0, 1, 2]
    assert table["against/cosine"].to_pylist() == [None, pytest.approx(-1, abs=1e-5), None]
    assert table["with/gradient"].to_pylist()[1] == pytest.approx(0.5, abs=1e-5)


def test_a_trajectory_with_looks_is_restored(scene, tmp_path):
    first = Trajectory({"a": ("x",)})
    for step, gradients in ((0, {"a": (0.5, 2.0)}), (1, None)):
        first.append(
            step=step, epoch=1, progress=0.0, total=1.0, task=1.0, losses=[1.0], weights=[1.0], gradients=gradients
        )
    first.write(tmp_path / "trajectory.parquet")
    second = Trajectory({"a": ("x",)})
    second.restore(tmp_path / "trajectory.parquet")
    assert second.table().equals(first.table())


@pytest.mark.parametrize(("every", "due"), [(1, [0, 1, 2, 3]), (3, [0, 3])])
def test_steps_that_are_looked_at(every, due):
    diagnosis = Diagnosis(every=every)
    assert [step for step in range(4) if diagnosis.is_due(step)] == due


@pytest.mark.parametrize(
    ("options", "rule"), [({"every": 0}, "at least 1, found 0"), ({"scope": "lst"}, "taps, last, all, found 'lst'")]
)
def test_options_are_checked(options, rule):
    with pytest.raises(ValueError, match=rule):
        Diagnosis(**options)


def test_a_path_without_a_gradient_has_no_direction(scene):
    distiller, batch, targets = scene
    student = distiller.student
    for parameter in student.parameters():
        parameter.data.zero_()
    recorder, trajectory = Recorder(distiller, log_every=1), Trajectory(distiller.layers)
    recorder.add(0, 0.0, distiller(batch, targets, "last").detach())
    report = recorder.finish(trajectory, epoch=1)
    assert all(math.isfinite(value) for value in report.values())
