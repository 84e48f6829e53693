import pytest
import torch
from torch import nn

from distill.aggregators import Adaptive, Equal, LogSum
from distill.batch import Batch
from distill.distiller import Distiller
from distill.models import ResNet8, ResNet20
from distill.paths import AttentionTransfer, FeatureMap, Logits, NSTGram, SoftmaxRegression, SoftTarget
from distill.paths.base import LogitPath
from distill.taps import OUTPUT
from distill.tasks import Classification
from distill.teacher import Teacher

TASK = Classification()


def student():
    torch.manual_seed(0)
    return ResNet8(num_classes=4, in_channels=1, width=4)


def teacher():
    torch.manual_seed(1)
    return Teacher(ResNet20(num_classes=4, in_channels=1, width=8), TASK)


def batch(num=6):
    generator = torch.Generator().manual_seed(2)
    return Batch(torch.randn(num, 1, 8, 8, generator=generator), torch.arange(num) % 4, torch.arange(num))


def all_paths():
    return {
        "soft_target": SoftTarget(),
        "attention": AttentionTransfer(),
        "nst": NSTGram(),
        "logits": Logits(),
        "softmax_regression": SoftmaxRegression(),
        "feature_map": FeatureMap(),
    }


def make(paths, aggregator, watch=None):
    watch = watch or teacher()
    return Distiller(student(), watch, paths, aggregator, TASK, sample=batch().images[:2], seed=7), watch


def test_total_is_task_plus_the_sum_of_all_layers_under_equal_weights():
    distiller, watch = make(all_paths(), Equal())
    step = distiller(batch(), distiller.targets(watch(batch().images)))
    assert len(step.layers) == len(distiller.layer_keys) == 3 * 3 + 3
    assert torch.allclose(step.total, step.task + step.layers.sum())
    assert torch.equal(step.weights, torch.ones(len(step.layers)))


@pytest.mark.parametrize(("granularity", "count"), [("path", 2), ("layer", 4)])
def test_one_weight_a_path_or_a_layer(granularity, count):
    aggregator = Adaptive(granularity)
    distiller, watch = make({"attention": AttentionTransfer(), "soft_target": SoftTarget()}, aggregator)
    assert aggregator.a.shape == (count,)
    with torch.no_grad():
        aggregator.a.copy_(torch.arange(count))
    step = distiller(batch(), distiller.targets(watch(batch().images)))
    expected = torch.exp(-torch.arange(count).float())
    if granularity == "path":
        expected = expected[[0, 0, 0, 1]]
    assert torch.allclose(step.weights, expected)


def test_every_parameter_gets_a_gradient_and_the_teacher_none():
    distiller, watch = make(all_paths(), Adaptive("layer"))
    before = {name: value.clone() for name, value in watch.model.state_dict().items()}
    distiller.train()
    watch.train()
    distiller(batch(), distiller.targets(watch(batch().images))).total.backward()
    assert [name for name, value in distiller.named_parameters() if value.grad is None] == []
    assert all(value.grad is None and not value.requires_grad for value in watch.parameters())
    assert not watch.training
    assert not watch.model.training
    assert all(torch.equal(value, before[name]) for name, value in watch.model.state_dict().items())
    assert not any(name.startswith("teacher") for name, _ in distiller.named_modules())


def test_a_student_alone_is_a_distiller_without_paths():
    distiller = Distiller(student(), None, {}, Equal(), TASK, sample=batch().images[:2])
    step = distiller(batch(), {})
    assert torch.equal(step.total, step.task)
    step.total.backward()


def test_paths_without_a_teacher_are_refused():
    with pytest.raises(ValueError, match="paths need a teacher"):
        Distiller(student(), None, {"logits": Logits()}, Equal(), TASK, sample=batch().images[:2])


def test_an_adapter_does_not_depend_on_the_other_paths():
    alone, _ = make({"nst": NSTGram()}, Equal())
    among, _ = make(all_paths(), Equal())
    for name, value in alone.paths["nst"].state_dict().items():
        assert torch.equal(value, among.paths["nst"].state_dict()[name]), name


def test_a_path_that_cannot_connect_is_named():
    with pytest.raises(ValueError, match=r"paths\.attention: .*layer9"):
        make({"attention": AttentionTransfer(taps=[{"student": "layer9", "teacher": "layer1"}])}, Equal())


class CanBeNegative(LogitPath):
    non_negative = False

    def loss(self, student, teacher, batch):
        return student.mean()


@pytest.mark.parametrize("aggregator", [Adaptive(), LogSum()])
def test_a_path_that_can_be_negative_is_refused_where_it_diverges(aggregator):
    with pytest.raises(ValueError, match=r"(?s)wild.*use Equal or Fixed"):
        make({"wild": CanBeNegative()}, aggregator)
    make({"wild": CanBeNegative()}, Equal())


def test_bfloat16_runs_the_student_and_keeps_losses_in_float32():
    watch = teacher()
    distiller = Distiller(student(), watch, all_paths(), Equal(), TASK, sample=batch().images[:2], precision="bfloat16")
    seen = []
    distiller.student.fc.register_forward_hook(lambda module, inputs, output: seen.append(output.dtype))
    step = distiller(batch(), distiller.targets(watch(batch().images)))
    assert seen == [torch.bfloat16]
    assert step.total.dtype == step.layers.dtype == torch.float32
    step.total.backward()
    assert all(torch.isfinite(value.grad).all() for value in distiller.parameters())


def test_close_leaves_the_plain_model():
    distiller, _ = make(all_paths(), Equal())
    distiller.close()
    assert not any(module._forward_hooks for module in distiller.student.modules())
    fresh = ResNet8(num_classes=4, in_channels=1, width=4)
    fresh.load_state_dict(distiller.student.state_dict())


class Clock(LogitPath):
    """Its loss is the progress that its batch names; it remembers what it heard."""

    heard: tuple[float, ...] = ()

    def advance(self, progress):
        self.heard += (progress,)

    def loss(self, student, teacher, batch):
        return student.sum() * 0 + batch.progress


def test_paths_hear_before_a_step_how_far_the_training_is_and_find_it_in_their_batch():
    clock = Clock()
    distiller, watch = make({"clock": clock}, Equal())
    targets = distiller.targets(watch(batch().images))
    assert distiller(batch(), targets).layers.item() == 0  # at the start, as long as nobody says so
    distiller.advance(0.25)
    assert distiller(batch(), targets).layers.item() == 0.25
    assert clock.heard == (0.25,)
    assert not [name for name in distiller.state_dict() if "progress" in name]


def test_each_batch_asks_the_teacher_once():
    watch = teacher()
    calls = []
    watch.model.register_forward_hook(lambda *_: calls.append(1))
    distiller, _ = make(all_paths(), Equal(), watch)
    calls.clear()
    distiller.targets(watch(batch().images))
    assert len(calls) == 1


def test_a_teacher_that_nothing_watches_gives_its_logits_alone():
    teacher = Teacher(nn.Linear(2, 2), TASK)
    [(name, logits)] = teacher(torch.ones(1, 2)).items()
    assert name == OUTPUT
    assert torch.equal(logits, teacher.model(torch.ones(1, 2)))
    with pytest.raises(ValueError, match=r"no taps of this reader: layer1; it has \[\]"):
        teacher(torch.ones(1, 2), only={"layer1"})
