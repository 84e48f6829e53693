"""Two and three real gloo ranks with different data: weights agree bit for bit, and training equals the whole batch."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest
import torch
import torch.distributed as dist
from aggregator_cases import example, gradients_of, variants
from on_ranks import on_ranks
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from distill import distributed
from distill.aggregators import Adaptive, Aggregator, Equal, LogSum, Losses
from distill.aggregators.gradients import SharedGradients
from distill.gradient_scope import Scope

NUM_STEPS, NUM_SAMPLES = 4, 12
SCALES = torch.tensor([1.0, 4.0, 12.0]).repeat_interleave(NUM_SAMPLES // 3)
"""Each rank sees much larger losses than the one before."""
EMPTY = {"Adaptive": Adaptive, "Equal": Equal, "LogSum": LogSum}


class Student(nn.Module):
    """One linear layer and as many losses as there are keys, each a mean over the samples."""

    def __init__(self, aggregator: Aggregator) -> None:
        super().__init__()
        self.linear = nn.Linear(3, 2)
        nn.init.constant_(self.linear.weight, 0.3)
        nn.init.constant_(self.linear.bias, 0.1)
        self.aggregator = aggregator

    def forward(self, inputs: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        outputs = self.linear(inputs)
        task, paths = outputs.square().mean(), self.paths(outputs)
        gradients = gradients_of(task, paths, list(self.linear.parameters()), outputs)
        aggregate = self.aggregator.combine(Losses(task, paths, self.aggregator.keys, 0.0, gradients))
        return aggregate.total, aggregate.weights, paths.detach()

    def paths(self, outputs: Tensor) -> Tensor:
        goals = [outputs - index - 1 for index in range(len(self.aggregator.keys))]
        return torch.stack([goal.square().mean() for goal in goals]) if goals else outputs.new_zeros(0)

    def held_out(self, inputs: Tensor) -> dict[Scope, Tensor]:
        """Return the gradient of the task's loss on other inputs, as a distiller does."""
        task = self.linear(inputs).square().mean()
        rows = SharedGradients(task, task.new_zeros(0), list(self.linear.parameters())).rows()
        return {"last": rows[0], "all": rows[0]}


def train(aggregator: Aggregator, samples: slice) -> dict[str, Tensor]:
    """Train on these samples of each batch; wrapped in DDP where there are ranks."""
    student = Student(aggregator).double()
    module = DistributedDataParallel(student) if dist.is_initialized() else student
    own = {"params": list(aggregator.parameters()), **aggregator.parameter_options()}
    optimizer = torch.optim.SGD([{"params": list(student.linear.parameters())}, own], lr=0.05, momentum=0.9)
    weights, losses = [], []
    for step in range(NUM_STEPS):
        batch = torch.randn(NUM_SAMPLES, 3, generator=torch.Generator().manual_seed(step), dtype=torch.float64)
        batch *= SCALES[:, None]
        aggregator.advance(step / NUM_STEPS)
        total, weight, loss = module(batch[samples])
        optimizer.zero_grad()
        total.backward()
        optimizer.step()
        aggregator.after_step(
            distributed.mean(student.paths(student.linear(batch[samples]))), student.held_out(batch[samples] - 0.5)
        )
        if step % 2:
            aggregator.after_epoch()
        weights.append(weight)
        losses.append(loss)
    return {
        "weights": torch.stack(weights),
        "losses": torch.stack(losses),
        "student": torch.cat([parameter.detach().flatten() for parameter in student.linear.parameters()]),
    }


def measure(rank: int, *, world_size: int) -> dict[str, dict[str, Tensor]]:
    share = NUM_SAMPLES // world_size
    samples = slice(share * rank, share * (rank + 1))
    results = {variant: train(example(variant), samples) for variant in variants()}
    for name, make in EMPTY.items():
        aggregator = make()
        aggregator.connect({})
        results[f"{name} without paths"] = train(aggregator, samples)
    return results


@pytest.fixture(scope="module", params=[2, 3], ids=["two", "three"])
def ranks(request: Any, tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, dict[str, Tensor]]]:
    world_size = request.param
    return on_ranks(partial(measure, world_size=world_size), tmp_path_factory.mktemp("ranks"), world_size)


@pytest.mark.parametrize("variant", variants())
def test_ranks_agree_and_equal_the_whole_batch(variant: str, ranks: Any) -> None:
    first, *others = (results[variant] for results in ranks)
    for other in others:
        assert not torch.allclose(first["losses"], other["losses"], rtol=0.5), "the ranks saw different data"
        assert torch.equal(first["weights"], other["weights"])
        assert torch.equal(first["student"], other["student"])
    whole = train(example(variant), slice(None))
    torch.testing.assert_close(first["weights"], whole["weights"], rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(first["student"], whole["student"], rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("name", EMPTY)
def test_a_student_alone_trains_on_several_ranks(name: str, ranks: Any) -> None:
    aggregator = EMPTY[name]()
    aggregator.connect({})
    whole = train(aggregator, slice(None))
    for results in ranks:
        torch.testing.assert_close(results[f"{name} without paths"]["student"], whole["student"])
