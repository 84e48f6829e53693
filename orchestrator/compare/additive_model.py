"""Least squares for a sweep: every run is its arm plus its seed plus noise."""

from __future__ import annotations

from functools import cached_property

import numpy as np
from numpy.typing import NDArray

TOLERANCE = 1e-8


class AdditiveModel:
    """``y = arm + seed + noise`` for runs of which any may be missing.

    With every arm run on every seed this is the two-way layout without interaction, whose residual has
    ``(arms - 1) (seeds - 1)`` degrees of freedom; otherwise the degrees of freedom are the runs less the rank of the
    dummy-coded design. Two arms give the paired t-test.

    Args:
        arms: ``[run]``, number of each run's arm.
        seed_effects: ``[run]``, number of each run's seed effect.
        num_arms: how many arms a contrast has, also such as have no run here.
    """

    def __init__(self, arms: NDArray[np.int64], seed_effects: NDArray[np.int64], *, num_arms: int) -> None:
        self._num_arms = num_arms
        num_runs = len(arms)
        num_seed_effects = int(seed_effects.max()) + 1 if num_runs else 0
        self._dummies: NDArray[np.float64] = np.zeros((num_runs, num_arms + num_seed_effects))  # [run, effect]
        self._dummies[np.arange(num_runs), arms] = 1
        self._dummies[np.arange(num_runs), num_arms + seed_effects] = 1

    @cached_property
    def _inverse(self) -> NDArray[np.float64]:
        return np.asarray(np.linalg.pinv(self._dummies, rcond=1e-10))  # [effect, run]

    @cached_property
    def leverage(self) -> NDArray[np.float64]:
        """``[run]``: share of each run's value that its own fit takes from it."""
        return np.asarray(np.einsum("re,er->r", self._dummies, self._inverse))

    @cached_property
    def dof(self) -> int:
        """Degrees of freedom of the residual."""
        # The trace of the projection is its rank.
        return len(self._dummies) - round(float(self.leverage.sum()))

    def residuals(self, values: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return what arm and seed do not explain; ``values`` and result are ``[..., run]``."""
        return np.asarray(values - values @ self._inverse.T @ self._dummies.T)

    def variance(self, values: NDArray[np.float64]) -> float:
        """Return the variance of the noise of one run; ``values`` is ``[run]``, ``dof`` must be positive."""
        return float((self.residuals(values) ** 2).sum() / self.dof)

    def seed_effects(self, values: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return ``[seed effect]``: how much each seed lifts a run, up to a constant for each block."""
        return np.asarray(self._inverse[self._num_arms :] @ values)

    def solution(self, precisions: NDArray[np.float64] | None = None) -> NDArray[np.float64]:
        """Return ``[effect, run]``: what estimates every effect from the runs, for :meth:`weights`.

        Args:
            precisions: ``[run]``, inverse noise variances up to a factor; equal where not given. They matter only
                where runs are missing.
        """
        if precisions is None:
            return self._inverse
        scale = np.sqrt(precisions)
        return np.asarray(np.linalg.pinv(scale[:, None] * self._dummies, rcond=1e-10) * scale)

    def weights(
        self, contrast: NDArray[np.float64], solution: NDArray[np.float64] | None = None
    ) -> NDArray[np.float64] | None:
        """Return ``[run]``: weights of the runs whose sum estimates a contrast of the arms.

        Args:
            contrast: ``[arm]``, weights that sum to zero.
            solution: what :meth:`solution` returned; default: for equal precisions.

        Returns:
            The weights, or None where the runs cannot tell the contrast (an arm without a run, or arms that share
            no seed by any chain of arms).
        """
        effects = self._inverse if solution is None else solution
        target = np.zeros(len(effects))
        target[: self._num_arms] = contrast
        weights = target @ effects
        if float(np.abs(weights @ self._dummies - target).max()) > TOLERANCE:
            return None
        return np.asarray(weights)
