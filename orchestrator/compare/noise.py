"""How much one run scatters: pooled over all arms, less those that plainly scatter more."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy import special

from orchestrator.compare.design import Design
from orchestrator.compare.noise_group import NoiseGroup

# An aggregator (or a block) keeps a noise of its own when its residuals are this many times those of the median one
# AND Fisher's F test against the rest is below this level over all aggregators AND its own noise has enough degrees
# of freedom. A lenient level is right here: keeping apart costs a little width, pooling wrongly costs coverage.
# Simulated with 4 aggregators x 5 path sets, one of them 1, 2 or 3 times noisier, on 2, 3 and 5 seeds: path effects
# cover 93 to 97% throughout, arms of the noisy aggregator 92 to 96%, where plain pooling covers 85 to 90% (x2 and x3).
RATIO = 1.5
LEVEL = 0.2
MIN_DOF = 4
# With fewer degrees of freedom a suspicion is only said, at this level.
CAUTION_LEVEL = 0.05
# One arm whose seeds scatter ten times as much as the typical arm's has collapsed on some seeds; left in the pool it
# would hide every other effect of the sweep.
COLLAPSE_RATIO = 10.0
# Runs that arm and seed explain entirely have no residual to judge them by.
FREE = 1e-6


class Noise:
    """The noise of one run, as a pool of runs and, where needed, groups that are kept apart.

    Args:
        groups: the pool first.
        cautions: sentences for the user about noise that is not alike.
    """

    def __init__(self, groups: Sequence[NoiseGroup], cautions: Sequence[str]) -> None:
        self.groups = tuple(groups)
        self.cautions = tuple(cautions)

    @classmethod
    def measure(cls, design: Design, values: NDArray[np.float64]) -> Noise | None:
        """Estimate the noise of the runs of ``design`` with ``values`` (``[cell]``).

        Returns:
            The noise, or None where nothing can be measured: a single seed, a single arm, or values without scatter.
        """
        apart: dict[str, NDArray[np.bool_]] = {}
        cautions = []
        for label, cells, text in _collapsed_arms(design, values):
            apart[label] = cells
            cautions.append(text)
        pool = ~_union(apart, len(values))
        while (found := _noisiest(design, values, pool)) is not None:
            label, cells, text, enough = found
            cautions.append(text)
            if not enough:
                break
            apart[label] = cells
            pool &= ~cells
        model = design.model(pool)
        if model.dof < 1:
            return None
        variance = model.variance(values[pool])
        if variance <= np.finfo(float).eps * max(1.0, float(np.abs(values).max())) ** 2:
            return None
        groups = [NoiseGroup("all runs" if not apart else "the other runs", pool, variance, model.dof)]
        groups += [_own_noise(design, values, pool, label, cells) for label, cells in apart.items()]
        return cls(groups, cautions)

    @property
    def pooled(self) -> NoiseGroup:
        """The pool: all runs but those kept apart."""
        return self.groups[0]

    @property
    def precisions(self) -> NDArray[np.float64] | None:
        """``[cell]``: inverse variances of the runs; None where one noise holds for all."""
        if len(self.groups) == 1:
            return None
        inverse = np.zeros(len(self.pooled.cells))
        for group in self.groups:
            inverse[group.cells] = self.pooled.variance / max(group.variance, 1e-6 * self.pooled.variance)
        return inverse

    def of_sum(self, weights: NDArray[np.float64]) -> tuple[float, float]:
        """Return standard error and Satterthwaite's degrees of freedom of ``weights @ values`` (``[cell]``)."""
        parts = [(group.variance * float((weights[group.cells] ** 2).sum()), group.dof) for group in self.groups]
        variance = sum(part for part, _ in parts)
        dof = variance**2 / sum(part**2 / dof for part, dof in parts)
        return float(np.sqrt(variance)), float(dof)


def _union(groups: dict[str, NDArray[np.bool_]], num_cells: int) -> NDArray[np.bool_]:
    cells = np.zeros(num_cells, dtype=bool)
    for group in groups.values():
        cells |= group
    return cells


def _collapsed_arms(design: Design, values: NDArray[np.float64]) -> list[tuple[str, NDArray[np.bool_], str]]:
    """Find arms with some collapsed seeds by medians, which the collapsed runs themselves cannot move."""
    num_seed_effects = int(design.seed_effect_of_cell.max()) + 1
    table = np.full((len(design.arms), num_seed_effects), np.nan)  # [arm, seed effect]
    table[design.arm_of_cell, design.seed_effect_of_cell] = values
    arms_per_column = (~np.isnan(table)).sum(axis=0)
    table[:, arms_per_column < 3] = np.nan  # with fewer arms a median has nothing to hold on to
    num_seeds = (~np.isnan(table)).sum(axis=1)
    usable = np.flatnonzero(num_seeds >= 2)
    if len(usable) < 3:
        return []
    table = table[usable]
    known = ~np.isnan(table).all(axis=0)
    table = table[:, known]
    median = np.nanmedian if np.isnan(table).any() else np.median  # four times as fast, and the common case
    table = table - median(table, axis=1, keepdims=True)
    table = table - median(table, axis=0)
    sd = np.nanstd(table, axis=1, ddof=1)
    dof = num_seeds[usable] - 1
    # Dividing by what the median of a chi distribution is makes arms with different numbers of seeds comparable.
    typical = float(np.median(sd / np.sqrt(special.chdtri(dof, 0.5) / dof)))
    if typical <= 0:
        return []
    found = []
    for position, spread in zip(usable, sd, strict=True):
        if spread > COLLAPSE_RATIO * typical:
            name = design.arms[position].name
            text = (
                f"{name}: its seeds scatter by {spread:.3g}, {spread / typical:.0f} times the typical arm; "
                "some of them collapsed; its noise is kept apart, and every effect that rests on it is as unsure"
            )
            found.append((name, design.arm_of_cell == position, text))
    return found


def _noisiest(
    design: Design, values: NDArray[np.float64], pool: NDArray[np.bool_]
) -> tuple[str, NDArray[np.bool_], str, bool] | None:
    """Find the aggregator or block in the pool that scatters more than the others; None where they are alike."""
    model = design.model(pool)
    if model.dof < 1:
        return None
    squares = np.zeros(len(values))
    free = np.zeros(len(values))
    squares[pool] = model.residuals(values[pool]) ** 2
    free[pool] = 1 - model.leverage
    worst: tuple[bool, float, str, NDArray[np.bool_]] | None = None
    for family in (_aggregators(design), _blocks(design)):
        groups = {label: cells & pool for label, cells in family.items() if free[cells].sum() > FREE}
        sds = {label: float(np.sqrt(squares[cells].sum() / free[cells].sum())) for label, cells in groups.items()}
        median = float(np.median(list(sds.values()))) if len(sds) >= 3 else 0.0
        for label, cells in groups.items():
            if median <= 0 or sds[label] <= RATIO * median:
                continue
            enough = int(cells.sum()) - len(np.unique(design.arm_of_cell[cells])) >= MIN_DOF
            p_value = _f_test(design, values, pool & ~cells, sds[label] ** 2, float(free[cells].sum())) * len(sds)
            rank = (enough, sds[label] / median)
            if p_value < (LEVEL if enough else CAUTION_LEVEL) and (worst is None or rank > worst[:2]):
                worst = (*rank, label, cells)
    if worst is None:
        return None
    enough, ratio, label, cells = worst
    remedy = (
        "its noise is kept apart"
        if enough
        else ("too few runs to keep it apart: its own intervals may be too narrow, and it widens those of the others")
    )
    return label, cells, f"{label} scatters {ratio:.1f} times as much as the median one; {remedy}", enough


def _aggregators(design: Design) -> dict[str, NDArray[np.bool_]]:
    """``[cell]`` for each aggregator: which runs are its own."""
    labels = np.array([arm.aggregator for arm in design.arms])[design.arm_of_cell]
    return {str(label): labels == label for label in np.unique(labels)}


def _blocks(design: Design) -> dict[str, NDArray[np.bool_]]:
    """``[cell]`` for each block: which runs are in it."""
    blocks = design.block_of_arm[design.arm_of_cell]
    names = {int(block): design.arms[arm].setting for arm, block in reversed(list(enumerate(design.block_of_arm)))}
    return {f"the block of {names[int(block)] or 'the base'}": blocks == block for block in np.unique(blocks)}


def _f_test(
    design: Design,
    values: NDArray[np.float64],
    rest: NDArray[np.bool_],
    variance: float,
    dof: float,
) -> float:
    """Return the p value of a group of this ``variance`` scattering no more than the ``rest`` of the pool."""
    model = design.model(rest)
    if model.dof < 1:
        return 1.0
    other = model.variance(values[rest])
    return float(special.fdtrc(dof, model.dof, variance / other)) if other > 0 else 1.0


def _own_noise(
    design: Design, values: NDArray[np.float64], pool: NDArray[np.bool_], label: str, cells: NDArray[np.bool_]
) -> NoiseGroup:
    """Estimate the noise of runs kept apart: their spread within each arm, around the seed effects of the pool."""
    arms, seed_effects = design.arm_of_cell[cells], design.seed_effect_of_cell[cells]
    own = values[cells].copy()
    if set(seed_effects.tolist()) <= set(design.seed_effect_of_cell[pool].tolist()):
        own -= design.model(pool).seed_effects(values[pool])[seed_effects]
    squares, dof = 0.0, 0
    for arm in np.unique(arms):
        spread = own[arms == arm]
        squares += float(((spread - spread.mean()) ** 2).sum())
        dof += len(spread) - 1
    return NoiseGroup(label, cells, squares / dof, dof)
