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


def test_a_value_that_sits_out_steps_goes_on_as_if_there_had_been_none() -> None:
    sitting, plain = (torch.tensor([1.0, -2.0], dtype=torch.float64) for _ in range(2))
    ours, theirs = BufferedAdam(2, 0.1), BufferedAdam(2, 0.1)
    gradients = torch.randn(6, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    for number, gradient in enumerate(gradients):
        counts = torch.tensor([True, number in (1, 4)])
        ours(sitting, gradient.where(counts, torch.nan), counts=counts)
    for gradient in (gradients[1], gradients[4]):
        theirs(plain, gradient)
    assert sitting[1] == plain[1]
    for name, value in ours.named_buffers():
        assert value[1] == dict(theirs.named_buffers())[name][1], name
    assert sitting[0] not in (1.0, plain[0])


@pytest.mark.parametrize("poison", [math.nan, math.inf, 1e200])  # the last one's square is infinite
def test_a_gradient_that_is_not_finite_changes_nothing(poison: float) -> None:
    values, gradient = torch.tensor([1.0, -2.0], dtype=torch.float64), torch.tensor([0.5, 0.5], dtype=torch.float64)
    adam = BufferedAdam(2, 0.1)
    adam(values, gradient)
    before = [each.clone() for each in (values, *adam.buffers())]
    adam(values, torch.tensor([poison, 1.0], dtype=torch.float64))
    for each, old in zip((values, *adam.buffers()), before, strict=True):
        assert torch.equal(each, old)
