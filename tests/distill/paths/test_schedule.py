"""When a path takes part: the gradient follows the schedule, the value never does."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from distill.aggregators import Adaptive, LogSum
from distill.batch import Batch
from distill.build import build, check
from distill.distiller import Distiller
from distill.models import ResNet8
from distill.paths import AttentionTransfer, Logits, Schedule
from distill.slots import PATH
from distill.tasks import Classification
from distill.teacher import Teacher


@pytest.mark.parametrize(
    ("schedule", "factors"),
    [
        (Schedule(), [1, 1, 1, 1, 1]),
        (Schedule(warm_up=0.5), [0, 0.5, 1, 1, 1]),
        (Schedule(start=0.5), [0, 0, 1, 1, 1]),
        (Schedule(start=0.25, warm_up=0.5), [0, 0, 0.5, 1, 1]),
        (Schedule(end=0.5), [1, 1, 0, 0, 0]),
        (Schedule(start=0.25, end=0.75), [0, 1, 1, 0, 0]),
    ],
)
def test_the_factor_at_each_quarter_of_the_training(schedule: Schedule, factors: list[float]) -> None:
    assert [schedule.factor(quarter / 4).item() for quarter in range(5)] == factors
    assert [schedule.factor(torch.tensor(quarter / 4)).item() for quarter in range(5)] == factors


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"start": 1.0}, "start must be"),
        ({"start": -0.1}, "start must be"),
        ({"warm_up": 1.5}, "warm_up must be"),
        ({"start": 0.5, "end": 0.5}, "end must lie above start"),
        ({"end": 1.1}, "end must lie above start"),
    ],
)
def test_what_is_no_part_of_a_training_is_refused(options: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Schedule(**options)
    [problem] = check({"use": "SoftTarget", "schedule": options}, PATH)
    assert problem.key.startswith("schedule")


def test_a_file_gives_any_path_a_schedule_beside_its_options() -> None:
    path = build({"use": "SoftTarget", "temperature": 2.0, "schedule": {"warm_up": 0.1}}, PATH)
    assert path.temperature == 2.0
    assert path.schedule == Schedule(warm_up=0.1)
    assert build({"use": "SoftTarget"}, PATH).schedule == Schedule()
    [problem] = check({"use": "SoftTarget", "schedule": {"warmup": 0.1}}, PATH)
    assert problem.key == "schedule.warmup"
    assert problem.nearest == "warm_up"


def test_the_target_is_the_same_whatever_the_schedule() -> None:
    plain, scheduled = (build({"use": "SoftTarget"} | more, PATH) for more in ({}, {"schedule": {"end": 0.5}}))
    assert plain.target_identity() == scheduled.target_identity()


def make(aggregator: Any, schedule: Schedule) -> tuple[Distiller, Teacher]:
    torch.manual_seed(0)
    task = Classification()
    teacher = Teacher(ResNet8(num_classes=4, in_channels=1, width=8), task)
    paths = {"attention": AttentionTransfer(), "logits": Logits()}
    paths["logits"].schedule = schedule
    student = ResNet8(num_classes=4, in_channels=1, width=4)
    return Distiller(student, teacher, paths, aggregator, task, sample=torch.randn(2, 1, 8, 8)), teacher


@pytest.mark.parametrize("aggregator", [Adaptive, LogSum])
@pytest.mark.parametrize("factor", [0.0, 0.5, 1.0])
def test_the_gradient_is_scaled_and_the_aggregator_sees_the_loss_as_it_is(aggregator: Any, factor: float) -> None:
    images = torch.randn(4, 1, 8, 8, generator=torch.Generator().manual_seed(1))
    batch = Batch(images, torch.arange(4), torch.arange(4))
    found = {}
    for name, schedule in {"scheduled": Schedule(warm_up=0.5), "always": Schedule(), "never": Schedule(0.999)}.items():
        distiller, teacher = make(aggregator(), schedule)
        distiller.advance(factor / 2)
        step = distiller(batch, distiller.targets(teacher(images)))
        step.total.backward()
        gradient = torch.cat([value.grad.flatten() for value in distiller.student.parameters()])
        learned = [value.grad.clone() for value in distiller.aggregator.parameters()]
        found[name] = (step.total.detach(), step.layers.detach(), gradient, learned)
    for name in ("scheduled", "never"):
        torch.testing.assert_close(found[name][:2], found["always"][:2])
        torch.testing.assert_close(found[name][3], found["always"][3])
    wanted = factor * found["always"][2] + (1 - factor) * found["never"][2]
    torch.testing.assert_close(found["scheduled"][2], wanted)
    assert not torch.allclose(found["always"][2], found["never"][2])
