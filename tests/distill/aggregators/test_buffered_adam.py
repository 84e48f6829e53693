from __future__ import annotations

import math

import pytest
import torch

from distill.aggregators.buffered_adam import BufferedAdam


def test_equals_torchs_own() -> None:
    ours, theirs = (torch.tensor([1.0, -2.0, 0.0], dtype=torch.float64) for _ in range(2))
    theirs.requires_grad_()
    adam = BufferedAdam(3, 0.1, weight_decay=0.2, epsilon=1e-3)
    optimizer = torch.optim.Adam([theirs], lr=0.1, weight_decay=0.2, eps=1e-3)
    generator = torch.Generator().manual_seed(0)
    for _ in range(50):
        gradient = torch.randn(3, generator=generator, dtype=torch.float64)
        theirs.grad = gradient.clone()
        optimizer.step()
        adam(ours, gradient)
        torch.testing.assert_close(ours, theirs.detach())


@pytest.mark.parametrize("poison", [math.nan, math.inf, 1e200])  # the last one's square is infinite
def test_a_gradient_that_is_not_finite_changes_nothing(poison: float) -> None:
    values, gradient = torch.tensor([1.0, -2.0], dtype=torch.float64), torch.tensor([0.5, 0.5], dtype=torch.float64)
    adam = BufferedAdam(2, 0.1)
    adam(values, gradient)
    before = [each.clone() for each in (values, *adam.buffers())]
    adam(values, torch.tensor([poison, 1.0], dtype=torch.float64))
    for each, old in zip((values, *adam.buffers()), before, strict=True):
        assert torch.equal(each, old)
