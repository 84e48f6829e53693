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
TOLERANCES = {torch.float64: (1e-9, 1e-12), torch.float32: (1e-3, 1e-5)}
"""For the same numbers summed in another order, relative and absolute."""
ROUGH, TOLERANCE_OF_ROUGH = (
    ("GradientBalance by CAGrad", "GradientBalance by NashMTL", "GradientDirection by GradDrop"),
    (1e-5, 1e-7),
)
"""Those whose solver stops within a tolerance of its own, or that report multiples of what depends on each other."""
Results = dict[str, dict[str, dict[str, Tensor]]]
"""What a rank has, by type and variant."""
EMPTY = {"Adaptive": Adaptive, "Equal": Equal, "LogSum": LogSum}


class Student(nn.Module):
    """One linear layer and as many losses as there are keys, each a mean over the samples."""

    def __init__(self, aggregator: Aggregator) -> None:
        super().__init__()
        self.linear = nn.Linear(3, 2)
        nn.init.constant_(self.linear.weight, 0.3)
        nn.init.constant_(self.linear.bias, 0.1)
        self.aggregator = aggregator
        self.progress = 0.0

    def forward(self, inputs: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        outputs = self.linear(inputs)
        task, paths = outputs.square().mean(), self.paths(outputs)
        gradients = gradients_of(task, paths, list(self.linear.parameters()), outputs)
        aggregate = self.aggregator.combine(Losses(task, paths, self.aggregator.keys, self.progress, gradients))
        return aggregate.total, aggregate.weights, paths.detach()

    def paths(self, outputs: Tensor) -> Tensor:
        # Each of another shape: of gradients that depend on each other, or are as far apart, rounding would decide.
        slopes = [outputs.new_tensor([1 + index, 2 - index]) for index in range(len(self.aggregator.keys))]
        paths = [(slope * outputs - index - 1).square().mean() for index, slope in enumerate(slopes)]
        return torch.stack(paths) if paths else outputs.new_zeros(0)

    def held_out(self, inputs: Tensor) -> dict[Scope, Tensor]:
        """Return the gradient of the task's loss on other inputs, as a distiller does."""
        task = self.linear(inputs).square().mean()
        rows = SharedGradients(task, task.new_zeros(0), list(self.linear.parameters())).rows()
        return {"last": rows[0], "all": rows[0]}


def train(aggregator: Aggregator, samples: slice, dtype: torch.dtype) -> dict[str, Tensor]:
    """Train on these samples of each batch; wrapped in DDP where there are ranks."""
    student = Student(aggregator)
    if dtype == torch.float64:
        student.double()
    module = DistributedDataParallel(student) if dist.is_initialized() else student
    own = {"params": list(aggregator.parameters()), **aggregator.parameter_options()}
    optimizer = torch.optim.SGD([{"params": list(student.linear.parameters())}, own], lr=0.05, momentum=0.9)
    weights, losses = [], []
    for step in range(NUM_STEPS):
        batch = torch.randn(NUM_SAMPLES, 3, generator=torch.Generator().manual_seed(step), dtype=torch.float64)
        batch = (batch * SCALES[:, None]).to(dtype)
        student.progress = step / NUM_STEPS
        aggregator.advance(student.progress)
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


def measure(rank: int, *, world_size: int) -> Results:
    share = NUM_SAMPLES // world_size
    samples = slice(share * rank, share * (rank + 1))
    return {str(dtype): measure_in(dtype, samples) for dtype in TOLERANCES}


def measure_in(dtype: torch.dtype, samples: slice) -> dict[str, dict[str, Tensor]]:
    results = {variant: train(example(variant), samples, dtype) for variant in variants()}
    for name, make in EMPTY.items():
        aggregator = make()
        aggregator.connect({})
        results[f"{name} without paths"] = train(aggregator, samples, dtype)
    return results


@pytest.fixture(scope="module", params=[2, 3], ids=["two", "three"])
def ranks(request: Any, tmp_path_factory: pytest.TempPathFactory) -> list[Results]:
    world_size = request.param
    return on_ranks(partial(measure, world_size=world_size), tmp_path_factory.mktemp("ranks"), world_size)


in_every_type = pytest.mark.parametrize("dtype", TOLERANCES, ids=str)


@in_every_type
@pytest.mark.parametrize("variant", variants())
def test_ranks_agree_and_equal_the_whole_batch(variant: str, dtype: torch.dtype, ranks: list[Results]) -> None:
    first, *others = (results[str(dtype)][variant] for results in ranks)
    for other in others:
        assert not torch.allclose(first["losses"], other["losses"], rtol=0.5), "the ranks saw different data"
        assert torch.equal(first["weights"], other["weights"])
        assert torch.equal(first["student"], other["student"])
    whole = train(example(variant), slice(None), dtype)
    rtol, atol = TOLERANCE_OF_ROUGH if variant in ROUGH and dtype == torch.float64 else TOLERANCES[dtype]
    torch.testing.assert_close(first["weights"], whole["weights"], rtol=rtol, atol=atol)
    torch.testing.assert_close(first["student"], whole["student"], rtol=rtol, atol=atol)


@in_every_type
@pytest.mark.parametrize("name", EMPTY)
def test_a_student_alone_trains_on_several_ranks(name: str, dtype: torch.dtype, ranks: list[Results]) -> None:
    aggregator = EMPTY[name]()
    aggregator.connect({})
    whole = train(aggregator, slice(None), dtype)
    for results in ranks:
        torch.testing.assert_close(results[str(dtype)][f"{name} without paths"]["student"], whole["student"])
