"""What DistPro learns from is the slope of the held-out loss after the step, and moves the weights the right way."""

from __future__ import annotations

import pytest
import torch
from aggregator_cases import connected
from torch import Tensor, nn

from distill.aggregators import Aggregator, DistPro, Losses
from distill.aggregators.gradients import SharedGradients


class Tiny:
    """A student of six numbers with a task, three paths of far different scale, and a held-out loss; none is linear."""

    def __init__(self) -> None:
        generator = torch.Generator().manual_seed(2)
        self.start = torch.randn(6, generator=generator, dtype=torch.float64)
        self.goals = torch.randn(5, 6, generator=generator, dtype=torch.float64)
        self.inputs = torch.randn(5, 6, 6, generator=generator, dtype=torch.float64)

    def loss(self, number: int, student: Tensor) -> Tensor:
        return (torch.tanh(self.inputs[number] @ student) - self.goals[number]).square().mean()

    def losses(self, student: Tensor) -> Losses:
        task = self.loss(0, student)
        paths = torch.stack([scale * self.loss(1 + k, student) for k, scale in enumerate((1e-3, 1.0, 50.0))])
        return Losses(task, paths, ("a", "b", "c"), 0.0, {"all": SharedGradients(task, paths, [student])})

    def held_out(self, student: Tensor) -> Tensor:
        return self.loss(4, student)


class Given(nn.Module):
    """Keeps the gradient that it is given to descend."""

    gradient: Tensor

    def forward(self, values: Tensor, gradient: Tensor, counts: Tensor) -> None:
        assert counts.all()
        self.gradient = gradient


RATE = 0.03


@pytest.mark.parametrize("relative", [False, True])
@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_the_slope_is_that_of_the_held_out_loss_after_one_step(relative: bool, momentum: float) -> None:
    """What Adam is given is, by central differences, the derivative of the held-out loss in each logit."""
    tiny = Tiny()
    logits = torch.tensor([0.3, -0.8, 0.5], dtype=torch.float64)
    past = 0.1 * tiny.goals[0]

    def student_after(values: Tensor) -> tuple[Tensor, Aggregator]:
        aggregator = connected(DistPro(alpha_distill=0.7, every=1, relative=relative), 3)
        dict(aggregator.named_buffers())["_logits"].copy_(values)
        student = tiny.start.clone().requires_grad_()
        optimizer = torch.optim.SGD([student], lr=RATE, momentum=momentum, weight_decay=0.01)
        if momentum:
            optimizer.state[student]["momentum_buffer"] = past.clone()
        aggregator.advance(0.0)
        aggregator(tiny.losses(student)).total.backward()
        optimizer.step()
        return student, aggregator

    student, aggregator = student_after(logits)
    adam = Given()
    aggregator.adam = adam
    (held_out,) = torch.autograd.grad(tiny.held_out(student), [student])
    aggregator.after_step(None, {"all": held_out})
    for key in range(3):
        change = torch.zeros(3, dtype=torch.float64)
        change[key] = 1e-5
        above, below = (tiny.held_out(student_after(logits + sign * change)[0]).item() for sign in (1, -1))
        assert RATE * adam.gradient[key].item() == pytest.approx((above - below) / 2e-5, rel=1e-6)


def test_the_slope_in_each_weight_is_that_of_an_unrolled_step() -> None:
    """The rule itself, against automatic differentiation through the step."""
    tiny = Tiny()
    student = tiny.start.clone().requires_grad_()
    losses = tiny.losses(student)
    weights = torch.tensor([0.2, 0.5, 0.01], dtype=torch.float64, requires_grad=True)
    rows = losses.gradients["all"].rows()  # type: ignore[attr-defined]
    (gradient,) = torch.autograd.grad(losses.task + weights @ losses.paths, [student], create_graph=True)
    after = student - RATE * gradient
    (unrolled,) = torch.autograd.grad(tiny.held_out(after), [weights])
    moved = after.detach().requires_grad_()
    (held_out,) = torch.autograd.grad(tiny.held_out(moved), [moved])
    torch.testing.assert_close(-RATE * rows[1:] @ held_out, unrolled, rtol=1e-12, atol=0)


@pytest.mark.parametrize("scale", [1e-9, 1.0, 1e9])
def test_what_helps_gains_and_what_hurts_loses_whatever_its_scale(scale: float) -> None:
    # Task and first path want the student about where the held-out loss wants it, the second path the other way.
    goals = torch.tensor([[1.0, 0.2], [1.0, 0.0], [-1.0, 0.0]], dtype=torch.float64)
    aggregator = connected(DistPro(every=1), 2)
    student = torch.zeros(2, dtype=torch.float64, requires_grad=True)
    held_out_goal = torch.tensor([1.0, 0.1], dtype=torch.float64)
    optimizer = torch.optim.SGD([student], lr=0.02)
    for _ in range(40):
        distances = (student - goals).square().sum(dim=1)
        task, paths = distances[0], distances[1:] * torch.tensor([1.0, scale], dtype=torch.float64)
        gradients = {"all": SharedGradients(task, paths, [student])}
        aggregator.advance(0.0)
        aggregate = aggregator(Losses(task, paths, ("a", "b"), 0.0, gradients))  # type: ignore[arg-type]
        optimizer.zero_grad()
        aggregate.total.backward()
        optimizer.step()
        moved = student.detach().requires_grad_()
        (held_out,) = torch.autograd.grad((moved - held_out_goal).square().sum(), [moved])
        aggregator.after_step(None, {"all": held_out})
    helps, hurts = dict(aggregator.named_buffers())["_logits"].tolist()
    assert helps > 1.0
    assert hurts < -1.0
