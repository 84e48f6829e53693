"""A loss that is not finite is found and named, at once or a few batches later."""

import pytest
import torch

from distill.finite_check import FiniteCheck, NonFiniteLossError
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
    with pytest.raises(NonFiniteLossError, match=r"step 7 \(epoch 2, rank 0\): the task is inf$"):
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
