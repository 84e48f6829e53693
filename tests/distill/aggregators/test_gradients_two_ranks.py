"""Why gradients are collected in the forward pass: several backward passes through one of DDP's leave ranks apart."""

from __future__ import annotations

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing
from aggregator_cases import gradients_of
from on_ranks import on_ranks
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from distill import distributed
from distill.aggregators import GradientBalance, Losses

NUM_SAMPLES = 8


class TwoLosses(nn.Module):
    """Two losses of one linear layer."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(3, 2).double()
        for parameter in self.linear.parameters():
            nn.init.constant_(parameter, 0.3)

    def forward(self, inputs: Tensor) -> tuple[Tensor, Tensor]:
        outputs = self.linear(inputs)
        return outputs.square().mean(), (outputs - 1).abs().mean()

    def gradient(self) -> Tensor:
        return torch.cat([parameter.grad.flatten() for parameter in self.linear.parameters()])


class Balanced(TwoLosses):
    """The same losses, weighed by their gradients before DDP's one backward pass."""

    def __init__(self) -> None:
        super().__init__()
        self.aggregator = GradientBalance("MGDA", normalize_rows=True)
        self.aggregator.connect({"path": ("only",)})

    def forward(self, inputs: Tensor) -> Tensor:  # type: ignore[override]
        task, path = super().forward(inputs)
        paths = path.reshape(1)
        gradients = gradients_of(task, paths, list(self.linear.parameters()), self.linear.weight)
        self.aggregator.advance(0.0)
        total: Tensor = self.aggregator.combine(Losses(task, paths, self.aggregator.keys, 0.0, gradients)).total
        return total


def inputs() -> Tensor:
    values = torch.randn(NUM_SAMPLES, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    values[NUM_SAMPLES // 2 :] *= 5  # the second rank's losses differ
    return values


def in_several_passes(samples: Tensor) -> Tensor:
    model = TwoLosses()
    module = DistributedDataParallel(model) if dist.is_initialized() else model
    first, second = module(samples)
    (0.8 * first).backward(retain_graph=True)
    (0.2 * second).backward()
    return model.gradient()


def in_one_pass(samples: Tensor) -> Tensor:
    model = Balanced()
    module = DistributedDataParallel(model) if dist.is_initialized() else model
    module(samples).backward()
    return model.gradient()


def work(rank: int) -> dict[str, Tensor]:
    share = inputs().chunk(2)[rank]
    return {
        "several": in_several_passes(share),
        "one": in_one_pass(share),
        "broadcast": distributed.broadcast(torch.tensor([rank + 0.5])),
    }


@pytest.fixture(scope="module")
def ranks(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Tensor]]:
    return on_ranks(work, tmp_path_factory.mktemp("ranks"))


def test_several_backward_passes_leave_each_rank_with_a_gradient_of_its_own(ranks: list[dict[str, Tensor]]) -> None:
    # If this fails DDP has changed for the better, and the collector could be simpler.
    assert not torch.allclose(ranks[0]["several"], ranks[1]["several"], rtol=0.01)


def test_gradients_taken_in_the_forward_pass_and_one_backward_pass_agree(ranks: list[dict[str, Tensor]]) -> None:
    assert torch.equal(ranks[0]["one"], ranks[1]["one"])
    torch.testing.assert_close(ranks[0]["one"], in_one_pass(inputs()), rtol=1e-9, atol=1e-12)


def test_broadcast_gives_all_what_rank_0_has(ranks: list[dict[str, Tensor]]) -> None:
    assert [results["broadcast"].item() for results in ranks] == [0.5, 0.5]
    value = torch.ones(1, requires_grad=True)
    assert distributed.broadcast(value).item() == 1
    assert not distributed.broadcast(value).requires_grad
