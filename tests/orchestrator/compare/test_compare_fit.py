"""Least squares and intervals against hand derivations, SciPy's paired t-test and an independent regression."""

import numpy as np
import pytest
from scipy import stats

from orchestrator.compare.design import Design
from orchestrator.compare.fit import Fit


def test_two_arms_on_two_seeds_by_hand(plan):
    # alone 80, 82; equal/a 83, 84. Differences by seed: 3 and 2, mean 2.5.
    # Residual of arm + seed: +-0.25 in every cell, sum of squares 4 * 0.0625 = 0.25 on (2 - 1)(2 - 1) = 1 degree of
    # freedom, so the noise of one run has variance 0.25. The mean of two runs has 0.125, the difference 0.25:
    # standard error 0.5. t(0.975, 1) = 12.7062, so the interval is 2.5 -+ 6.3531. p = 1 - 2/pi atan(5) = 0.125666.
    design = Design(plan(["a"], aggregators=["equal"], num_seeds=2))
    fit = Fit(design, np.array([80.0, 82.0, 83.0, 84.0]))
    estimate = fit.estimate([(1, 0)])
    assert fit.noise.pooled.variance == pytest.approx(0.25)
    assert fit.noise.pooled.dof == 1
    assert estimate.difference == pytest.approx(2.5)
    assert estimate.standard_error == pytest.approx(0.5)
    assert estimate.interval == pytest.approx((2.5 - 6.35310, 2.5 + 6.35310), abs=1e-4)
    assert estimate.p_value == pytest.approx(0.125666, abs=1e-6)


@pytest.mark.parametrize("num_seeds", [2, 3, 5, 8])
def test_two_arms_are_the_paired_t_test(plan, num_seeds):
    random = np.random.default_rng(num_seeds)
    design = Design(plan(["a"], aggregators=["adaptive"], num_seeds=num_seeds))
    alone, arm = random.normal(80, 2, num_seeds), random.normal(81, 2, num_seeds)
    reference = stats.ttest_rel(arm, alone)
    estimate = Fit(design, np.concatenate([alone, arm])).estimate([(1, 0)])
    assert estimate.dof == pytest.approx(num_seeds - 1)
    assert estimate.p_value == pytest.approx(reference.pvalue)
    assert estimate.interval == pytest.approx(tuple(reference.confidence_interval(0.95)))


def _regression(arms, seeds, values, first, second):
    """Ordinary least squares with reference-coded dummies and an intercept: difference, standard error, dof."""
    columns = [np.ones(len(values))]
    columns += [(arms == arm).astype(float) for arm in np.unique(arms)[1:]]
    columns += [(seeds == seed).astype(float) for seed in np.unique(seeds)[1:]]
    matrix = np.stack(columns, axis=1)
    coefficients, _, rank, _ = np.linalg.lstsq(matrix, values, rcond=None)
    assert rank == matrix.shape[1]
    dof = len(values) - rank
    variance = ((values - matrix @ coefficients) ** 2).sum() / dof
    contrast = np.zeros(matrix.shape[1])
    for arm, sign in ((first, 1), (second, -1)):
        if arm > 0:
            contrast[arm] += sign
    covariance = variance * np.linalg.inv(matrix.T @ matrix)
    return contrast @ coefficients, np.sqrt(contrast @ covariance @ contrast), dof


@pytest.mark.parametrize("missing", [0, 1, 4], ids=["balanced", "one run missing", "four runs missing"])
def test_every_difference_agrees_with_an_independent_regression(plan, missing):
    random = np.random.default_rng(missing)
    runs = plan(["a", "b", "a+b"], aggregators=["equal", "adaptive"], num_seeds=3)
    runs = [runs[i] for i in sorted(random.permutation(len(runs))[: len(runs) - missing])]
    design = Design(runs)
    values = random.normal(0, 1, len(runs)) + design.seed_of_cell + 2.0 * design.arm_of_cell
    fit = Fit(design, values)
    assert len(fit.noise.groups) == 1
    for first in range(7):
        for second in range(first):
            difference, standard_error, dof = _regression(
                design.arm_of_cell, design.seed_of_cell, values, first, second
            )
            estimate = fit.estimate([(first, second)])
            assert estimate.difference == pytest.approx(difference)
            assert estimate.standard_error == pytest.approx(standard_error)
            assert estimate.dof == pytest.approx(dof)
            low, high = stats.t.interval(0.95, dof, difference, standard_error)
            assert estimate.interval == pytest.approx((low, high))
    assert fit.noise.pooled.dof == (12 if missing == 0 else 12 - missing)


def test_a_missing_run_changes_the_estimate_by_its_seed(plan):
    # Seed 1 lifts every run by 10. Without the arm's run on seed 1 the plain means would say 80 - 85.
    runs = plan(["a", "b"], aggregators=["equal"], num_seeds=2)
    values = np.array([80.0, 90.1, 81.0, 91.0, 82.0, 92.2])
    keep = [0, 1, 2, 4, 5]
    fit = Fit(Design([runs[i] for i in keep]), values[keep])
    assert fit.estimate([(1, 0)]).difference == pytest.approx(1.0, abs=0.1)


def test_blocks_have_seed_effects_of_their_own(cell):
    # Two students: the seeds lift the one and lower the other; within each block the difference is exactly 1 and 2.
    runs, values = [], []
    for student, slope, gain in (("small", 5.0, 1.0), ("large", -3.0, 2.0)):
        for seed in range(3):
            noise = 0.1 * (-1) ** seed
            for arm, paths, add in ((f"alone s={student}", (), 0.0), (f"equal/a s={student}", ("a",), gain + noise)):
                kind = "run" if paths else "student"
                runs.append(cell(arm, "equal" if paths else "none", paths, seed, kind, {"student": student}))
                values.append(80 + slope * seed + add)
    fit = Fit(Design(runs), np.array(values))
    # (2 - 1)(3 - 1) in each of two blocks; noise of half the differences' squares around their means:
    # differences 1.1, 0.9, 1.1: sum of squares 0.02667, half of it a block, over 4 in all.
    assert fit.noise.pooled.dof == 4
    assert fit.noise.pooled.variance == pytest.approx(2 * 0.0266667 / 2 / 4, rel=1e-4)
    index = fit.design.index
    small = fit.estimate([(index["equal/a s=small"], index["alone s=small"])])
    assert small.difference == pytest.approx(1 + 0.1 / 3)


def test_arms_without_a_common_seed_are_not_compared(cell):
    runs = [cell("alone", "none", (), seed, "student") for seed in (0, 1)]
    runs += [cell("equal/a", "equal", ("a",), seed) for seed in (2, 3)]
    assert Fit(Design(runs), np.array([80.0, 81.0, 82.0, 84.0])).estimate([(1, 0)]) is None


def test_a_single_seed_has_differences_without_intervals(plan):
    fit = Fit(Design(plan(["a", "b"], aggregators=["equal"], num_seeds=1)), np.array([80.0, 81.0, 79.0]))
    estimate = fit.estimate([(1, 0)])
    assert fit.noise is None
    assert estimate.difference == pytest.approx(1.0)
    assert estimate.interval is None
    assert estimate.p_value is None


def test_values_without_any_scatter_decide_nothing(plan):
    # Three seeds with equal values, as of a tiny validation split: a zero noise would make every difference certain.
    fit = Fit(Design(plan(["a", "b"], aggregators=["equal"], num_seeds=3)), np.repeat([80.0, 81.0, 79.0], 3))
    assert fit.noise is None
    assert fit.estimate([(1, 0)]).interval is None
