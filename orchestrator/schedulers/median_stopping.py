"""Stopping below the median."""

from __future__ import annotations

import math
from typing import Any, Literal

from orchestrator.schedulers.stopping_rule import StoppingRule


class MedianStopping(StoppingRule):
    """Stop an arm whose best metric so far is below the median of the other arms' running means.

    Ray's implementation of the rule of Golovin et al., "Google Vizier", KDD 2017,
    https://research.google/pubs/pub46180/.

    Args:
        grace_period: epochs that every arm is given, and that the running means leave out.
        min_arms: how many other arms must have come as far before one is stopped.

    Raises:
        ValueError: an option is out of range.
    """

    def __init__(self, *, grace_period: int = 1, min_arms: int = 3) -> None:
        if grace_period < 1:
            raise ValueError(f"grace_period: must be at least 1 epoch, found {grace_period}")
        if min_arms < 1:
            raise ValueError(f"min_arms: must be at least 1, found {min_arms}")
        self.grace_period = grace_period
        self.min_arms = min_arms

    def build(self, *, metric: str, mode: Literal["min", "max"], num_epochs: int) -> Any:
        from ray.tune.schedulers import MedianStoppingRule

        return MedianStoppingRule(
            time_attr="epoch",
            metric=metric,
            mode=mode,
            grace_period=self.grace_period,
            min_samples_required=self.min_arms,
            # Never pause: a paused trial needs checkpoints of Ray. No number of epochs exceeds infinity.
            min_time_slice=math.inf,  # type: ignore[arg-type]
        )
