import pytest
import torch

from distill.step import Step


def step(task, layers, weights, task_weight=None):
    layers, weights = torch.tensor(layers), torch.tensor(weights)
    task, own = torch.tensor(task), None if task_weight is None else torch.tensor(task_weight)
    total = task * (1.0 if own is None else own) + (layers * weights).sum()
    return Step(total, task, layers, weights, own)


def test_the_mean_weight_makes_of_the_mean_loss_what_counted():
    mean = Step.mean([step(1.0, [1.0, 2.0], [2.0, 1.0], 0.5), step(3.0, [3.0, 2.0], [1.0, 3.0], 0.1)])
    # By hand: layers (2, 2); counted (2 + 3) / 2 = 2.5 and (2 + 6) / 2 = 4; the task (0.5 + 0.3) / 2 = 0.4 of 2.
    assert mean.layers.tolist() == [2.0, 2.0]
    assert mean.weights.tolist() == [1.25, 2.0]
    assert mean.task_weight.item() == pytest.approx(0.2)
    torch.testing.assert_close(mean.total, mean.task * mean.task_weight + (mean.layers * mean.weights).sum())


def test_a_loss_of_zero_has_the_plain_mean_weight():
    mean = Step.mean([step(1.0, [0.0], [2.0]), step(1.0, [0.0], [4.0])])
    assert mean.weights.tolist() == [3.0]
    assert mean.task_weight is None


def test_one_batch_is_its_own_mean():
    only = step(1.0, [1.0], [2.0], 0.3)
    assert Step.mean([only]) is only
