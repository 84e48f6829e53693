"""A loss that is not finite is found and named, at once or a few batches later."""

import pytest
import torch

from distill.finite_check import FiniteCheck, NegativeLossError, NonFiniteLossError
from distill.step import Step

CPU = torch.device("cpu")


def step(task=1.0, layers=(1.0, 1.0), weights=(1.0, 1.0)):
    layers, weights = torch.tensor(layers), torch.tensor(weights)
    task = torch.tensor(task, requires_grad=True)
    return Step(task + (layers * weights).sum(), task, layers, weights)


@pytest.mark.parametrize("delay", [0, 1, 2, 5])
def test_it_is_found_after_so_many_batches_and_named_by_its_own_step(delay):
    check = FiniteCheck(["kd.logits", "at.layer1"], CPU, rank=3, delay=delay)
    batches = [step(), step(layers=(1.0, float("nan"))), *(step() for _ in range(delay))]
    for number, losses in enumerate(batches[:-1]):
        check.add(losses, step=number, epoch=1)
    with pytest.raises(NonFiniteLossError, match=r"step 1 \(epoch 1, rank 3\): path at\.layer1 is nan$"):
        check.add(batches[-1], step=len(batches) - 1, epoch=1)


def test_the_end_of_an_epoch_looks_at_what_waits():
    check = FiniteCheck(["kd"], CPU, rank=0, delay=3)
    check.add(step(task=float("inf"), layers=(1.0,), weights=(1.0,)), step=7, epoch=2)
    with pytest.raises(
        NonFiniteLossError, match=r"step 7 \(epoch 2, rank 0\): the task is inf; often the learning rate is too high$"
    ):
        check.finish()
    check.finish()


def test_a_weight_is_named_where_all_losses_are_finite():
    check = FiniteCheck(["kd"], CPU, rank=0)
    with pytest.raises(NonFiniteLossError, match=r"every loss is finite, but the weights are \{'kd': inf\}"):
        check.add(step(layers=(1.0,), weights=(float("inf"),)), step=0, epoch=1)


def test_what_waits_holds_no_graph():
    check = FiniteCheck(["kd", "at"], CPU, rank=0, delay=2)
    check.add(step(), step=0, epoch=1)
    assert not check._waiting[0].losses.total.requires_grad


@pytest.mark.parametrize("delay", [0, 2])
def test_a_loss_below_zero_is_named_where_none_may_be(delay):
    check = FiniteCheck(["kd.logits", "at.layer1"], CPU, rank=3, delay=delay, accepts_negative=False)
    check.add(step(), step=0, epoch=1)
    batches = [step(layers=(1.0, -0.5)), *(step() for _ in range(delay))]
    for number, losses in enumerate(batches[:-1], start=1):
        check.add(losses, step=number, epoch=1)
    with pytest.raises(NegativeLossError) as refusal:
        check.add(batches[-1], step=len(batches), epoch=1)
    message = str(refusal.value)
    assert "below zero at step 1 (epoch 1, rank 3)" in message
    assert "path at.layer1 is -0.5;" in message
    assert "kd" not in message
    assert "declare non_negative = False in the path's class, and use Equal or Fixed" in message


def test_a_loss_below_zero_is_the_cause_of_a_weight_that_is_not_finite():
    check = FiniteCheck(["kd"], CPU, rank=0, accepts_negative=False)
    with pytest.raises(NegativeLossError, match=r"path kd is -2\.0"):
        check.add(step(layers=(-2.0,), weights=(float("nan"),)), step=0, epoch=1)


def test_what_is_not_finite_is_named_before_what_is_below_zero():
    check = FiniteCheck(["kd", "at"], CPU, rank=0, accepts_negative=False)
    with pytest.raises(NonFiniteLossError, match=r"path at is nan$"):
        check.add(step(layers=(-2.0, float("nan"))), step=0, epoch=1)


@pytest.mark.parametrize(("value", "accepts_negative"), [(-2.0, True), (-1e-5, False), (0.0, False)])
def test_losses_below_zero_are_taken_where_they_may_be_or_come_of_rounding(value, accepts_negative):
    check = FiniteCheck(["kd"], CPU, rank=0, accepts_negative=accepts_negative)
    check.add(step(layers=(value,), weights=(1.0,)), step=0, epoch=1)
    check.finish()


def test_a_student_alone_has_no_loss_that_may_not_be_negative():
    check = FiniteCheck([], CPU, rank=0, accepts_negative=False)
    check.add(step(layers=(), weights=()), step=0, epoch=1)
