"""The parts of a run from its configuration."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torchvision import models

from distill.aggregators import Fixed
from distill.aggregators.modifiers import Bound, CosineGate
from distill.counter_random import derive_seed
from distill.data import Digits
from distill.models import ResNet8
from distill.optimization import scheduler_maker
from distill.paths import SoftTarget
from orchestrator.assemble import (
    assemble,
    assemble_model,
    draw_model,
    resolve_optimizer,
    resolve_scheduler,
    sketch_model,
)
from orchestrator.config.complete import complete
from orchestrator.config.document import Document
from orchestrator.config.structure import structure

FILE = {
    "data": {"use": "Digits", "split": {"train": 100}},
    "teacher": {"model": {"use": "ResNet8", "width": 8}, "seed": 5},
    "student": {"model": {"use": "ResNet8", "width": 4}},
    "paths": {"kd": {"use": "SoftTarget", "temperature": 2}},
    "aggregator": {"use": "Fixed", "weights": {"kd": 0.5}},
    "train": {"epochs": 1},
}


def config(**changes):
    return complete(structure(Document("experiment.yaml", {**FILE, **changes}))).config


def same(first: nn.Module, second: nn.Module) -> bool:
    pairs = zip(first.state_dict().values(), second.state_dict().values(), strict=True)
    return all(torch.equal(one, other) for one, other in pairs)


def test_all_parts_are_built():
    parts = assemble(config())
    assert type(parts.dataset) is Digits
    assert type(parts.paths["kd"]) is SoftTarget
    assert type(parts.aggregator) is Fixed
    assert parts.aggregator.weights == {"kd": 0.5}
    assert parts.student.fc.out_features == 10
    assert parts.teacher.fc.in_features == 32
    assert parts.task.label_smoothing == 0.0


def test_groups_and_modifiers_are_built():
    paths = {"kd": {"use": "SoftTarget"}, "at": {"use": "AttentionTransfer"}}
    modifiers = [{"use": "CosineGate", "every": 5}, {"use": "Bound", "growth": 6}]
    written = {"use": "Adaptive", "granularity": {"late": ["kd"], "early": ["at"]}, "modifiers": modifiers}
    aggregator = assemble(config(paths=paths, aggregator=written)).aggregator
    gate, bound = aggregator.modifiers
    assert (type(gate), gate.every, type(bound), bound.growth) == (CosineGate, 5, Bound, 6)
    aggregator.connect({"kd": ("logits",), "at": ("layer1", "layer2")})
    assert aggregator.keys == gate.keys == bound.keys == ("late", "early")


def test_the_student_follows_from_its_seed_alone():
    first = assemble(config(seed=1)).student
    torch.rand(7)
    others = {"paths": {}, "aggregator": {"use": "LogSum"}, "teacher": None, "data_seed": 9}
    assert same(first, assemble(config(seed=1, **others)).student)
    assert not same(first, assemble(config(seed=2)).student)
    torch.manual_seed(derive_seed(1, "student"))
    assert same(first, ResNet8(num_classes=10, in_channels=1, width=4))


def test_the_teacher_follows_from_its_own_seed():
    first = assemble(config(seed=1)).teacher
    assert same(first, assemble(config(seed=2)).teacher)
    other = FILE["teacher"] | {"seed": 6}
    assert not same(first, assemble(config(seed=1, teacher=other)).teacher)


def test_the_global_generator_stays_as_it_was():
    before = torch.get_rng_state()
    assemble(config())
    assert torch.equal(before, torch.get_rng_state())


def test_a_checkpoint_is_loaded_and_said(tmp_path):
    reference = ResNet8(num_classes=10, in_channels=1, width=4)
    torch.save(reference.state_dict(), tmp_path / "student.pt")
    section = {"model": {"use": "ResNet8", "width": 4}, "weights": None, "checkpoint": str(tmp_path / "student.pt")}
    model, messages = assemble_model(section, Digits(), seed=0)
    assert same(model, reference)
    assert any("student.pt" in message for message in messages)


def test_a_backbone_starts_from_torchvisions_weights(tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    (tmp_path / "hub" / "checkpoints").mkdir(parents=True)
    weights = models.ShuffleNet_V2_X0_5_Weights.DEFAULT
    reference = models.shufflenet_v2_x0_5()
    torch.save(reference.state_dict(), tmp_path / "hub" / "checkpoints" / weights.url.rpartition("/")[2])
    spec = {"use": "FCN", "backbone": {"use": "torchvision.models.shufflenet_v2_x0_5"}}
    section = {"model": spec, "weights": None, "checkpoint": None, "weights_backbone": "DEFAULT"}
    before = torch.get_rng_state()
    model, messages = assemble_model(section, Digits(channels=3), seed=0)
    assert torch.equal(before, torch.get_rng_state())
    plain, none = assemble_model({**section, "weights_backbone": None}, Digits(channels=3), seed=0)
    assert torch.equal(model.backbone.stage5.conv5[0].weight, reference.conv5[0].weight)
    assert not torch.equal(plain.backbone.stage5.conv5[0].weight, reference.conv5[0].weight)
    assert same(model.classifier, plain.classifier)
    assert (len(messages), none) == (1, [])


@pytest.mark.parametrize("name", ["regnet_x_400mf", "resnet18"])
def test_a_sketch_takes_no_memory_and_draws_no_number(name):
    before = torch.get_rng_state()
    dataset = Digits(channels=3)
    model = sketch_model(draw_model({"use": f"torchvision.models.{name}"}, dataset), dataset)
    assert all(value.is_meta for value in model.state_dict().values())
    assert torch.equal(before, torch.get_rng_state())


def test_grey_images_and_a_model_for_coloured_ones():
    with pytest.raises(
        ValueError, match=r"torchvision\.models\.resnet18 takes images of 3 channels.*set data.channels"
    ):
        draw_model({"use": "torchvision.models.resnet18"}, Digits())
    assert draw_model({"use": "torchvision.models.resnet18"}, Digits(channels=3)).name == "torchvision.models.resnet18"


def test_optimizers_as_class_and_options():
    kind, options = resolve_optimizer({"use": "torch.optim.AdamW", "lr": 1, "betas": [0.8, 0.9]})
    assert kind is torch.optim.AdamW
    assert options == {"lr": 1.0, "betas": (0.8, 0.9)}


def test_schedules_of_schedules_are_made_where_training_makes_schedules():
    spec = {
        "use": "torch.optim.lr_scheduler.SequentialLR",
        "milestones": [2],
        "schedulers": [
            {"use": "torch.optim.lr_scheduler.ConstantLR", "factor": 0.5, "total_iters": 9},
            {"use": "torch.optim.lr_scheduler.StepLR", "step_size": 1, "gamma": 0.1},
        ],
    }
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=1.0)
    schedule = scheduler_maker(*resolve_scheduler(spec), step="epoch")(optimizer, epochs=5, total_steps=50)
    rates = []
    for _ in range(4):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    assert rates == pytest.approx([0.5, 0.5, 1.0, 0.1])


def test_a_schedule_s_length_is_filled_in():
    spec = {"use": "torch.optim.lr_scheduler.OneCycleLR", "max_lr": 0.3}
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=0.1, momentum=0.9)
    schedule = scheduler_maker(*resolve_scheduler(spec), step="batch")(optimizer, epochs=5, total_steps=50)
    assert schedule.total_steps == 50
