"""Paths that compare samples, on two real gloo ranks: with `gather` they see the batch as one process would."""

from __future__ import annotations

from typing import Any
from unittest import mock

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing
from on_ranks import on_ranks
from path_cases import make_case, same_numbers
from torch import Tensor

from distill import distributed, paths
from distill.batch import Batch
from distill.paths import BatchDependent

NAMES = sorted(name for name in paths.__all__ if issubclass(getattr(paths, name), BatchDependent))
BATCH_SIZE = 8
SHARES = (slice(0, 4), slice(4, 8))
Numbers = dict[str, Tensor]


def learn(name: str, part: slice, *, gather: bool) -> Numbers:
    """Return the loss of these samples and its gradients.

    The student's maps pass a linear map that all samples share, as any layer of a student is shared: `upstream`. What
    it gives each sample is `features`, and everything that the path learns has its own name.
    """
    case = make_case(name, batch_size=BATCH_SIZE)
    case.path.eval()  # BatchNorm would see a worker's share, with and without gather
    case.path.gather = gather
    generator = torch.Generator().manual_seed(1)
    upstream, features = {}, {}
    for tap in sorted({pair.student for pair in case.path.pairs}):
        width = case.student[tap].shape[1]
        mixing = torch.eye(width).double() + 0.3 * torch.randn(width, width, generator=generator, dtype=torch.float64)
        upstream[tap] = mixing.requires_grad_()
        features[tap] = torch.einsum("dc,bc...->bd...", upstream[tap], case.student[tap][part])
        features[tap].retain_grad()
    batch = Batch(torch.zeros(BATCH_SIZE, 1, 1, 1)[part], torch.arange(BATCH_SIZE)[part] % 4, torch.arange(8)[part])
    with same_numbers():
        target = case.path.target({tap: value[part] for tap, value in case.teacher.items()})
        losses = case.path(features, target, batch)
    loss = torch.stack(list(losses.values())).sum()
    loss.backward()
    return {
        "loss": loss.detach(),
        **{f"upstream {tap}": value.grad for tap, value in upstream.items()},
        **{f"features {tap}": value.grad for tap, value in features.items()},
        **{f"parameter {key}": value.grad for key, value in case.path.named_parameters()},
    }


class NotCounted(torch.autograd.Function):
    """What gathering must not be: a rank's own gradient counts once."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor) -> Tensor:
        shares = [torch.empty_like(rows) for _ in SHARES]
        dist.all_gather(shares, rows.contiguous())
        return torch.cat(shares)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return gradient.chunk(2)[dist.get_rank()]


def work(rank: int) -> dict[str, Numbers]:
    results = {
        f"{name} {gather}": learn(name, SHARES[rank], gather=gather) for name in NAMES for gather in (False, True)
    }
    with mock.patch.object(distributed, "gather_rows", NotCounted.apply):
        results |= {f"{name} not counted": learn(name, SHARES[rank], gather=True) for name in NAMES}
    return results


@pytest.fixture(scope="module")
def ranks(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Numbers]]:
    return on_ranks(work, tmp_path_factory.mktemp("ranks"))


def mean(first: Numbers, second: Numbers) -> Numbers:
    """Return what data-parallel training makes of two workers' numbers.

    Features belong to a worker: the mean over workers holds half of what each worker's own features got.
    """
    return {
        key: torch.cat([value, second[key]]) / 2 if key.startswith("features") else (value + second[key]) / 2
        for key, value in first.items()
    }


def agree(one: Numbers, other: Numbers) -> bool:
    assert one.keys() == other.keys()
    return all(torch.allclose(value, other[key], rtol=1e-9, atol=1e-13) for key, value in one.items())


def test_there_are_paths_that_compare_samples() -> None:
    assert {"CC", "DIST", "MultiLevelLogits", "PKT", "RKDAngle", "RKDDistance", "SP"} <= set(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_with_gather_two_ranks_equal_one_process_on_the_whole_batch(name: str, ranks: list[dict[str, Numbers]]) -> None:
    whole = learn(name, slice(None), gather=False)
    found = mean(*(results[f"{name} True"] for results in ranks))
    assert found.keys() == whole.keys()
    for key, value in whole.items():
        torch.testing.assert_close(found[key], value, rtol=1e-9, atol=1e-13, msg=lambda text, key=key: f"{key}: {text}")


@pytest.mark.parametrize("name", NAMES)
def test_without_gather_two_ranks_equal_shares_in_one_process(name: str, ranks: list[dict[str, Numbers]]) -> None:
    wanted = mean(*(learn(name, part, gather=False) for part in SHARES))
    found = mean(*(results[f"{name} False"] for results in ranks))
    assert agree(found, wanted)


@pytest.mark.parametrize("name", NAMES)
def test_the_comparison_notices_a_share_and_a_gradient_that_counts_once(
    name: str, ranks: list[dict[str, Numbers]]
) -> None:
    """The control of the two tests above."""
    whole = learn(name, slice(None), gather=False)
    for kind in ("False", "not counted"):
        assert not agree(mean(*(results[f"{name} {kind}"] for results in ranks)), whole), kind


def test_gathering_is_off_unless_asked_for() -> None:
    assert not any(getattr(paths, name).gather for name in NAMES)
    assert not any(make_case(name).path.gather for name in NAMES)
