"""A difference between arms and how sure it is."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import special

LEVEL = 0.95


@dataclass(frozen=True)
class Estimate:
    """A difference with Student's t interval.

    Attributes:
        difference: the estimate.
        standard_error: its standard error; None where the noise could not be measured.
        dof: degrees of freedom of the standard error (Satterthwaite's where several noises meet); None like it.
        num_pairs: how many pairs of arms it is the mean of.
    """

    difference: float
    standard_error: float | None = None
    dof: float | None = None
    num_pairs: int = 1

    @property
    def half_width(self) -> float | None:
        """Half the width of the 95% interval, or None without a measured noise."""
        if self.standard_error is None or self.dof is None:
            return None
        return float(special.stdtrit(self.dof, 0.5 + LEVEL / 2)) * self.standard_error

    @property
    def interval(self) -> tuple[float, float] | None:
        """The 95% interval, or None without a measured noise."""
        half = self.half_width
        return None if half is None else (self.difference - half, self.difference + half)

    @property
    def p_value(self) -> float | None:
        """Two-sided p value of "no difference", or None without a measured noise."""
        if self.standard_error is None or self.dof is None:
            return None
        with np.errstate(divide="ignore"):
            ratio = abs(np.float64(self.difference) / self.standard_error)
        return float(2 * special.stdtr(self.dof, -ratio))
