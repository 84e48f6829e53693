import pytest
import torch
from torch import nn

from distill.aggregators import Adaptive, AdaptivePaper, Equal
from distill.distiller import Distiller
from distill.models import ResNet8
from distill.optimization import optimizer_maker, parameter_groups, scheduler_maker
from distill.paths import NSTGram
from distill.tasks import Classification
from distill.teacher import Teacher

schedules = torch.optim.lr_scheduler


def make(aggregator):
    task = Classification()
    teacher = Teacher(ResNet8(num_classes=3, width=8), task)
    student = ResNet8(num_classes=3, width=4)
    return Distiller(student, teacher, {"nst": NSTGram()}, aggregator, task, sample=torch.zeros(2, 3, 8, 8))


def test_the_aggregator_has_a_group_of_its_own():
    distiller = make(Adaptive(learning_rate=0.01, weight_decay=0.0))
    groups = optimizer_maker(torch.optim.SGD, {"lr": 0.1, "weight_decay": 5e-4})(
        parameter_groups(distiller)
    ).param_groups
    assert len(groups) == 2
    assert (groups[0]["lr"], groups[0]["weight_decay"]) == (0.1, 5e-4)
    assert (groups[1]["lr"], groups[1]["weight_decay"]) == (0.01, 0.0)
    assert groups[1]["params"] == [distiller.aggregator.a]
    everything = {id(value) for group in groups for value in group["params"]}
    assert everything == {id(value) for value in distiller.parameters()}


def test_the_papers_preset_shares_rate_and_weight_decay():
    groups = optimizer_maker(torch.optim.SGD, {"lr": 0.1, "weight_decay": 1e-4})(
        parameter_groups(make(AdaptivePaper()))
    ).param_groups
    assert (groups[1]["lr"], groups[1]["weight_decay"]) == (0.1, 1e-4)


def test_nothing_to_learn_is_no_group():
    assert len(parameter_groups(make(Equal()))) == 1


def test_frozen_parameters_stay_out():
    distiller = make(Equal())
    distiller.student.stem.requires_grad_(False)
    [group] = parameter_groups(distiller)
    assert all(value.requires_grad for value in group["params"])


def optimizer(*rates):
    return torch.optim.SGD([{"params": [nn.Parameter(torch.zeros(1))], "lr": rate} for rate in rates], lr=1.0)


def run(scheduler, steps):
    rates = []
    for _ in range(steps):
        rates.append([group["lr"] for group in scheduler.optimizer.param_groups])
        scheduler.optimizer.step()
        scheduler.step()
    return rates


def test_one_cycle_keeps_the_ratio_of_an_own_rate():
    made = scheduler_maker(schedules.OneCycleLR, {"max_lr": 0.4}, step="batch")(
        optimizer(0.1, 0.01), epochs=2, total_steps=10
    )
    rates = run(made, 10)
    assert max(first for first, _ in rates) == pytest.approx(0.4, rel=0.1)
    for first, second in rates:
        assert second == pytest.approx(first / 10)


@pytest.mark.parametrize(("step", "length"), [("batch", 12), ("epoch", 3)])
def test_cosine_ends_at_zero_after_its_own_number_of_steps(step, length):
    made = scheduler_maker(schedules.CosineAnnealingLR, {}, step=step)(optimizer(0.1), epochs=3, total_steps=12)
    run(made, length)
    assert made.optimizer.param_groups[0]["lr"] == pytest.approx(0.0, abs=1e-9)


def test_milestones_are_taken_as_they_are():
    made = scheduler_maker(schedules.MultiStepLR, {"milestones": [1, 2], "gamma": 0.2}, step="epoch")(
        optimizer(0.1), epochs=3, total_steps=99
    )
    assert [rate for [rate] in run(made, 3)] == pytest.approx([0.1, 0.02, 0.004])


def test_a_length_that_the_file_gives_wins():
    made = scheduler_maker(schedules.CosineAnnealingLR, {"T_max": 5}, step="batch")(
        optimizer(0.1), epochs=3, total_steps=12
    )
    assert made.T_max == 5
