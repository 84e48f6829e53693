"""What a design can decide, before a run is spent on it."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from scipy import special

from orchestrator.compare.design import Design
from orchestrator.compare.estimate import LEVEL
from orchestrator.compare.planned import Planned

# An effect of this size is decided in four of five sweeps. Half the interval's width would flatter the design: an
# effect of that size is missed every other time.
POWER = 0.8


def smallest_effect(standard_error: float, dof: float, *, num_paths: int) -> float:
    """Return the effect that is decided with a chance of 80%, after Holm's correction at its strictest.

    From the noncentral t distribution, whose far tail is left out.

    Args:
        standard_error: standard error of the effect.
        dof: its degrees of freedom.
        num_paths: how many paths are decided upon together.
    """
    quantile = float(special.stdtrit(dof, 1 - (1 - LEVEL) / (2 * num_paths)))
    return float(special.nctdtrinc(dof, 1 - POWER, quantile)) * standard_error


def decidable_effect(design: Sequence[Planned], noise_sd: float) -> dict[str, float]:
    """Return the smallest effect of each path that a sweep can decide in four of five repetitions.

    Args:
        design: the planned runs, the student alone among them.
        noise_sd: standard deviation of the noise of one run, in units of the metric; 1 gives multiples of it.

    Returns:
        The smallest effect of each path, sorted by name; infinite where no number of points could be decided: with a
        single seed, or for the paths that :func:`undecidable_paths` names.

    Raises:
        ValueError: ``noise_sd`` is not positive.
    """
    if not noise_sd > 0:
        raise ValueError(f"noise_sd must be positive, found {noise_sd!r}")
    plan = Design(design)
    model = plan.model()
    weights = {path: model.weights(plan.contrast(pairs)) for path in plan.paths if (pairs := plan.pairs(path))}
    effects = dict.fromkeys(plan.paths, math.inf)
    for path, cells in weights.items():
        if cells is not None and model.dof > 0:
            standard_error = noise_sd * float(np.sqrt((cells**2).sum()))
            effects[path] = smallest_effect(standard_error, model.dof, num_paths=len(weights))
    return effects


def undecidable_paths(design: Sequence[Planned]) -> dict[str, str]:
    """Return the paths whose effect no sweep of this design can tell, each with the reason.

    Their effect becomes decidable when one more path set leaves the path out, or runs it alone.
    """
    plan = Design(design)
    reasons = {path: plan.why_undecidable(path) for path in plan.paths}
    return {path: reason for path, reason in reasons.items() if reason is not None}
