"""Runs that share one noise."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class NoiseGroup:
    """Runs whose noise is estimated together.

    Attributes:
        label: what they are: ``all runs``, or the aggregator or arm that is kept apart.
        cells: ``[cell]``, which runs belong to it.
        variance: variance of the noise of one run.
        dof: degrees of freedom of the variance.
    """

    label: str
    cells: NDArray[np.bool_]
    variance: float
    dof: int

    @property
    def sd(self) -> float:
        """Standard deviation of the noise of one run."""
        return float(np.sqrt(self.variance))
