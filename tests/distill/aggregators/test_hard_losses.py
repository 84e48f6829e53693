"""Losses of any size, in any company: every aggregator of values against its equation, written down once more."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from aggregator_cases import HARD_LOSSES, connected, losses_of

from distill.aggregators import (
    DWA,
    FAMO,
    Adaptive,
    Aggregator,
    Chebyshev,
    GeometricMean,
    InitialLoss,
    LogSum,
    SoftmaxWeights,
    UncertaintyWeighting,
)

Numbers = np.ndarray
ALPHA, EPSILON, TASK = 0.5, 1e-8, 1.0


def log_sum(losses: Numbers) -> tuple[float, Numbers]:
    return TASK + ALPHA * np.log(losses + EPSILON).sum(), ALPHA / (losses + EPSILON)


def geometric_mean(losses: Numbers) -> tuple[float, Numbers]:
    mean = math.exp(np.log(losses + EPSILON).mean())
    return TASK + ALPHA * len(losses) * mean, ALPHA * mean / (losses + EPSILON)


def smooth_maximum(losses: Numbers, factors: Numbers) -> tuple[float, Numbers]:
    scaled = factors * losses / 0.1
    shares = np.exp(scaled - scaled.max())
    value = 0.1 * (scaled.max() + np.log(shares.sum()))
    return TASK + ALPHA * value, ALPHA * factors * shares / shares.sum()


def chebyshev(losses: Numbers) -> tuple[float, Numbers]:
    return smooth_maximum(losses, np.ones_like(losses))


def relative_chebyshev(losses: Numbers) -> tuple[float, Numbers]:
    return smooth_maximum(losses, 1 / np.maximum(losses, 1e-8 * TASK))


def initial_loss(losses: Numbers) -> tuple[float, Numbers]:
    weights = ALPHA / np.maximum(losses, 1e-8 * TASK)
    return TASK + (weights * losses).sum(), weights


def adaptive(losses: Numbers) -> tuple[float, Numbers]:
    return TASK + ALPHA * losses.sum(), np.full_like(losses, ALPHA)


def uncertainty(losses: Numbers) -> tuple[float, Numbers]:
    return TASK + ALPHA / 2 * losses.sum(), np.full_like(losses, ALPHA / 2)


def uncertainty_from_losses(losses: Numbers) -> tuple[float, Numbers]:
    # Starts at s = log L, no further down than a weight of 1e4 allows; at 0 where the loss is 0.
    lowest = math.log(ALPHA / 2 / 1e4)
    s = np.where(losses > 0, np.maximum(np.log(np.where(losses > 0, losses, 1.0)), lowest), 0.0)
    weights = ALPHA / 2 * np.exp(-s)
    return TASK + (weights * losses).sum() + ALPHA / 2 * s.sum(), weights


def first_epoch(losses: Numbers) -> tuple[float, Numbers]:
    return TASK + ALPHA * losses.sum(), np.full_like(losses, ALPHA)


def famo(losses: Numbers) -> tuple[float, Numbers]:
    shares = (losses > 0) / (losses + EPSILON)
    weights = ALPHA * shares / max(shares.sum(), 1e-300)
    return TASK + (weights * losses).sum(), weights


REFERENCES: dict[str, tuple[Callable[[], Aggregator], Callable[[Numbers], tuple[float, Numbers]]]] = {
    "Adaptive": (lambda: Adaptive(alpha_distill=ALPHA), adaptive),
    "Chebyshev": (lambda: Chebyshev(alpha_distill=ALPHA, relative=False), chebyshev),
    "Chebyshev of relative losses": (lambda: Chebyshev(alpha_distill=ALPHA), relative_chebyshev),
    "DWA": (lambda: DWA(ALPHA), first_epoch),
    "FAMO": (lambda: FAMO(ALPHA), famo),
    "GeometricMean": (lambda: GeometricMean(ALPHA), geometric_mean),
    "InitialLoss": (lambda: InitialLoss(ALPHA), initial_loss),
    "LogSum": (lambda: LogSum(alpha_distill=ALPHA), log_sum),
    "SoftmaxWeights": (lambda: SoftmaxWeights(ALPHA), first_epoch),
    "UncertaintyWeighting": (lambda: UncertaintyWeighting(ALPHA), uncertainty),
    "UncertaintyWeighting from its first losses": (
        lambda: UncertaintyWeighting(ALPHA, initial="log_loss"),
        uncertainty_from_losses,
    ),
}


DTYPES = (torch.float32, torch.float64)

hard_losses = pytest.mark.parametrize("values", HARD_LOSSES, ids=str)


@pytest.mark.parametrize("name", REFERENCES)
@hard_losses
def test_first_batch_equals_the_equation(name: str, values: tuple[float, ...]) -> None:
    make, reference = REFERENCES[name]
    for dtype in DTYPES:
        losses = losses_of(*values, task=TASK, dtype=dtype)
        aggregate = connected(make(), len(values))(losses)
        aggregate.total.backward()
        total, weights = reference(losses.paths.detach().double().numpy())
        wanted = torch.from_numpy(weights)
        # Learned scalars, and first losses, are of float32 whatever the losses are.
        torch.testing.assert_close(aggregate.weights.double(), wanted, rtol=2e-5, atol=1e-30)
        torch.testing.assert_close(losses.paths.grad.double(), wanted, rtol=2e-5, atol=1e-30)
        assert aggregate.total.item() == pytest.approx(total, rel=2e-5, abs=1e-4)


@hard_losses
def test_dwa_equals_its_equation_after_hard_epochs(values: tuple[float, ...]) -> None:
    for dtype in DTYPES:
        aggregator = connected(DWA(ALPHA), len(values))
        epochs = [losses_of(*each, dtype=dtype) for each in (values, values[::-1])]
        for losses in epochs:
            aggregator(losses)
            aggregator.after_epoch()
        older, newer = (losses.paths.detach().double().numpy() for losses in epochs)
        has_ratio = (older > 0) & (newer > 0)
        ratios = np.where(has_ratio, newer / np.where(has_ratio, older, 1.0), 1.0)
        ratios = np.minimum(ratios, np.finfo(np.float32).max) / 2
        shares = np.exp(ratios - ratios.max())
        wanted = torch.from_numpy(ALPHA * len(values) * shares / shares.sum())
        torch.testing.assert_close(aggregator(epochs[0]).weights.double(), wanted, rtol=1e-5, atol=1e-30)
