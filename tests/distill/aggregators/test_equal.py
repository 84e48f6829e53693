from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from aggregator_cases import connected, losses_of

from distill.aggregators import Aggregator, Equal
from distill.aggregators.modifiers import Bound, Ramp


def golden_sum(make: Callable[..., Aggregator]) -> None:
    # 1 + 2 * (3 + 5) = 17; without the option 1 + 3 + 5 = 9.
    losses = losses_of(3.0, 5.0)
    aggregate = connected(make(alpha_distill=2.0), 2)(losses)
    aggregate.total.backward()
    torch.testing.assert_close(aggregate.total.item(), 17.0)
    torch.testing.assert_close(aggregate.weights, torch.tensor([2.0, 2.0], dtype=torch.float64))
    torch.testing.assert_close(losses.paths.grad, torch.tensor([2.0, 2.0], dtype=torch.float64))
    torch.testing.assert_close(losses.task.grad, torch.ones((), dtype=torch.float64))
    torch.testing.assert_close(connected(make(), 2)(losses_of(3.0, 5.0)).total.item(), 9.0)


def golden_modified(make: Callable[..., Aggregator]) -> None:
    # Weights of 2, bounded to 1/2, then half of that by a ramp at its middle: 1/4 reaches the student. The value stays
    # that of the plain sum, 1 + 2 * 4 + 2 * 3 = 15.
    losses = replace(losses_of(4.0, 3.0), progress=0.5)
    aggregate = connected(make(alpha_distill=2.0, modifiers=[Bound(0.5), Ramp()]), 2).combine(losses)
    aggregate.total.backward()  # type: ignore[no-untyped-call]
    assert aggregate.total.item() == 15
    assert aggregate.weights.tolist() == [0.25, 0.25]
    assert losses.paths.grad is not None
    assert losses.paths.grad.tolist() == [0.25, 0.25]
    assert losses.task.grad is not None
    assert losses.task.grad.item() == 1


GOLDENS = {"Equal": (golden_sum, golden_modified)}


def test_a_louder_path_counts_more() -> None:
    # Unlike under LogSum: the gradient of a path that is multiplied by 1000 is multiplied by 1000.
    features = torch.tensor([2.0], requires_grad=True)
    gradients = []
    for scale in (1.0, 1000.0):
        losses = losses_of(0.0)
        paths = scale * features.square()
        total = connected(Equal(), 1)(type(losses)(losses.task, paths, losses.keys, 0.0)).total
        gradients.append(torch.autograd.grad(total, features)[0])
    torch.testing.assert_close(gradients[1], 1000 * gradients[0])


@pytest.mark.parametrize("alpha", [-1, math.nan, math.inf, "1", False])
def test_alpha_must_not_be_negative(alpha: Any) -> None:
    with pytest.raises(ValueError, match="alpha_distill must be a finite number of at least 0, found"):
        Equal(alpha_distill=alpha)


MUTANTS = {
    "Equal": [
        ("losses.paths, self.alpha_distill", "losses.paths, -self.alpha_distill"),
        ("losses.paths, self.alpha_distill", "losses.paths, self.alpha_distill / len(losses.paths)"),
        ("losses.paths, self.alpha_distill", "losses.paths, 1.0"),
        ("alpha_distill: float = 1.0", "alpha_distill: float = 0.5"),
        ("losses.task + (weights", "losses.task - (weights", "distill.aggregators.base"),
        ("paths=constant", "paths=losses.paths", "distill.aggregators.base"),
        ("(losses.paths - constant)", "losses.paths", "distill.aggregators.base"),
        ("(weights * (losses.paths - constant)).sum()", "(losses.paths - constant).sum()", "distill.aggregators.base"),
        (
            "weights = modifier.reweigh(weights,",
            "weights = modifier.reweigh(aggregate.weights,",
            "distill.aggregators.base",
        ),
        ("total=total, weights=weights)", "total=total)", "distill.aggregators.base"),
        ("(weights * losses.paths).sum()", "(weights * losses.paths).mean()", "distill.aggregators.base"),
        ("(weights * losses.paths).sum()", "(weights * losses.paths.abs().sqrt()).sum()", "distill.aggregators.base"),
        ("losses.task + (weights", "losses.task.detach() + (weights", "distill.aggregators.base"),
        ("(weights * losses.paths).sum()", "(weights * losses.paths.detach()).sum()", "distill.aggregators.base"),
    ],
}
"""Changes of the source that a golden value notices; see test_mutants."""
