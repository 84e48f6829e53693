"""What one path does to the student."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from orchestrator.compare.decidable import smallest_effect
from orchestrator.compare.estimate import Estimate
from orchestrator.compare.fit import Fit
from orchestrator.compare.verdicts import UNDECIDABLE, adjust, verdict


@dataclass(frozen=True)
class PathEffect:
    """The effect of one path, averaged over all pairs of arms that differ in it only.

    Attributes:
        path: name of the path.
        verdict: ``helps``, ``hurts``, ``undecided`` or ``not decidable``.
        effect: the mean over the pairs; None where there is no pair.
        add_one: the path added to the student alone; None where that was not run.
        leave_one_out: the set of all paths against the set without this one; None where that was not run.
        shapley: its exact Shapley value, which shares the gain of all paths together out among them; None where not all
            subsets were run.
        p_value: two-sided, after Holm's correction over the paths; None without a measured noise.
        smallest_decidable: the effect that this sweep decides in four of five repetitions.
        reason: why it is not decidable, else None.
    """

    path: str
    verdict: str
    effect: Estimate | None
    add_one: Estimate | None
    leave_one_out: Estimate | None
    shapley: Estimate | None
    p_value: float | None
    smallest_decidable: float | None
    reason: str | None


def path_effects(fit: Fit, *, sign: int, paths: tuple[str, ...]) -> tuple[PathEffect, ...]:
    """Return the effect of each of ``paths``, the best first, those that cannot be told last.

    Args:
        fit: the fitted runs.
        sign: 1 where larger values are better, -1 where smaller ones are.
        paths: the paths of the sweep, also such as only unfinished arms have.
    """
    design = fit.design
    effects = {path: fit.estimate(design.pairs(path)) for path in paths}
    adjusted = dict(zip(paths, adjust([effects[path] for path in paths]), strict=True))
    num_tested = sum(value is not None for value in adjusted.values())
    found = []
    for path in paths:
        effect = effects[path]
        found.append(
            PathEffect(
                path=path,
                verdict=UNDECIDABLE if effect is None else verdict(effect, adjusted[path], sign=sign),
                effect=effect,
                add_one=fit.estimate(design.add_one(path)),
                leave_one_out=fit.estimate(design.leave_one_out(path)),
                shapley=fit.estimate(*_listed(design.shapley(path))),
                p_value=adjusted[path],
                smallest_decidable=_smallest(effect, num_tested),
                reason=_why_undecidable(fit, path) if effect is None else None,
            )
        )
    return tuple(sorted(found, key=lambda item: (item.effect is None, -sign * _difference(item), item.path)))


def _listed(shares: Mapping[tuple[int, int], float]) -> tuple[list[tuple[int, int]], list[float]]:
    return list(shares), list(shares.values())


def _difference(item: PathEffect) -> float:
    return 0.0 if item.effect is None else item.effect.difference


def _smallest(effect: Estimate | None, num_tested: int) -> float | None:
    if effect is None or effect.standard_error is None or effect.dof is None:
        return None
    return smallest_effect(effect.standard_error, effect.dof, num_paths=num_tested)


def _why_undecidable(fit: Fit, path: str) -> str:
    if path not in fit.design.paths:
        return "no arm with it is complete"
    return fit.design.why_undecidable(path) or "the finished runs of its arms share no seed"
