"""Asynchronous successive halving."""

from __future__ import annotations

from typing import Any, Literal

from orchestrator.schedulers.stopping_rule import StoppingRule


class ASHA(StoppingRule):
    """At epochs ``grace_period * reduction_factor ** k``, stop an arm that is below the best ``1 / reduction_factor``.

    Ray's implementation of Li et al., "A System for Massively Parallel Hyperparameter Tuning", 2018,
    https://arxiv.org/abs/1810.05934, with one bracket. Departure: arms that reach ``max_epochs`` run on to their end,
    they are only not halved any more.

    Args:
        grace_period: epochs that every arm is given.
        reduction_factor: how many arms one survivor stands for.
        max_epochs: the last epoch at which arms are halved; None: the end of the longest run.

    Raises:
        ValueError: an option is out of range.
    """

    def __init__(self, *, grace_period: int = 1, reduction_factor: float = 4, max_epochs: int | None = None) -> None:
        if grace_period < 1:
            raise ValueError(f"grace_period: must be at least 1 epoch, found {grace_period}")
        if reduction_factor <= 1:
            raise ValueError(f"reduction_factor: must be above 1, found {reduction_factor}")
        if max_epochs is not None and max_epochs < grace_period:
            raise ValueError(f"max_epochs: must be at least grace_period, which is {grace_period}, found {max_epochs}")
        self.grace_period = grace_period
        self.reduction_factor = reduction_factor
        self.max_epochs = max_epochs

    def build(self, *, metric: str, mode: Literal["min", "max"], num_epochs: int) -> Any:
        from ray.tune.schedulers import AsyncHyperBandScheduler

        return AsyncHyperBandScheduler(
            time_attr="epoch",
            metric=metric,
            mode=mode,
            grace_period=self.grace_period,
            reduction_factor=self.reduction_factor,
            # Ray wants the grace period within the runs; an arm is never stopped at its last epoch anyway.
            max_t=max(self.grace_period, self.max_epochs or num_epochs),
            stop_last_trials=False,
        )
