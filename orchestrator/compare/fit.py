"""The runs of a sweep fitted by arm and seed: differences with intervals."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from orchestrator.compare.design import Design
from orchestrator.compare.estimate import Estimate
from orchestrator.compare.noise import Noise


class Fit:
    """Least squares of ``y = arm + seed + noise`` with the noise pooled over the arms.

    Pooling is what makes two or three seeds enough: a t interval over the seeds of one pair of arms has one or two
    degrees of freedom, the pooled residual has ``(arms - 1) (seeds - 1)``.

    Args:
        design: arms and seeds.
        values: ``[cell]``, the metric of each run.
    """

    def __init__(self, design: Design, values: NDArray[np.float64]) -> None:
        self.design = design
        self._values = values
        self.noise = Noise.measure(design, values) if len(values) else None
        precisions = self.noise.precisions if self.noise is not None else None
        self._solution = design.model().solution(precisions) if len(values) else None

    def estimate(self, pairs: Sequence[tuple[int, int]], shares: Sequence[float] | None = None) -> Estimate | None:
        """Estimate the mean over ``pairs`` of first arm minus second arm.

        Args:
            pairs: positions of arms.
            shares: how much each pair counts; alike where not given.

        Returns:
            The estimate, without an interval where no noise could be measured; None without pairs, or where the
            runs cannot tell it.
        """
        if not pairs:
            return None
        weights = self.design.model().weights(self.design.contrast(pairs, shares), self._solution)
        if weights is None:
            return None
        difference = float(weights @ self._values)
        if self.noise is None:
            return Estimate(difference, num_pairs=len(pairs))
        standard_error, dof = self.noise.of_sum(weights)
        return Estimate(difference, standard_error, dof, len(pairs))
