"""Noise that is not alike: collapsed arms and noisy aggregators are kept apart, and said."""

import numpy as np
import pytest

from orchestrator.compare.design import Design
from orchestrator.compare.fit import Fit

SETS = ["a", "b", "a+b", "a+c", "a+b+c"]


@pytest.fixture
def design(plan):
    return Design(plan(SETS, aggregators=["equal", "adaptive", "logsum"], num_seeds=3))


def _values(design, seed=0, sd=0.2):
    random = np.random.default_rng(seed)
    seeds = random.normal(0, 0.3, 3)[design.seed_of_cell]
    return 80 + seeds + random.normal(0, 1, len(design.seed_of_cell)) * sd


def test_alike_noise_is_pooled_over_all_runs(design):
    noise = Fit(design, _values(design)).noise
    assert [group.label for group in noise.groups] == ["all runs"]
    assert noise.pooled.dof == 15 * 2
    assert noise.pooled.sd == pytest.approx(0.2, rel=0.3)
    assert noise.cautions == ()


def test_an_arm_that_collapses_on_one_seed_does_not_hide_the_others(design):
    values = _values(design)
    clean = Fit(design, values)
    arm = design.index["adaptive/a+b+c"]
    values[np.flatnonzero(design.arm_of_cell == arm)[1]] = 10.0
    fit = Fit(design, values)
    assert [group.label for group in fit.noise.groups[1:]] == ["adaptive/a+b+c"]
    assert fit.noise.groups[1].dof == 2
    assert fit.noise.pooled.sd == pytest.approx(clean.noise.pooled.sd, rel=0.2)
    calm = [(design.index["equal/a"], design.index["alone"])]
    assert fit.estimate(calm).half_width == pytest.approx(clean.estimate(calm).half_width, rel=0.2)
    collapsed = [(arm, design.index["alone"])]
    assert fit.estimate(collapsed).half_width > 50
    assert "adaptive/a+b+c: its seeds scatter by" in fit.noise.cautions[0]


def test_an_aggregator_that_scatters_more_keeps_its_own_noise(design):
    labels = np.array([design.arms[arm].aggregator for arm in design.arm_of_cell])
    fit = Fit(design, _values(design, sd=np.where(labels == "adaptive", 0.8, 0.2)))
    pool, own = fit.noise.groups
    assert own.label == "adaptive"
    # Five arms on three seeds around the seed effects of the others: 5 * (3 - 1).
    assert own.dof == 10
    assert own.sd == pytest.approx(0.8, rel=0.35)
    assert pool.sd == pytest.approx(0.2, rel=0.35)
    alone = design.index["alone"]
    noisy, calm = (fit.estimate([(design.index[name], alone)]) for name in ("adaptive/a", "equal/a"))
    assert noisy.half_width > 2 * calm.half_width
    assert "adaptive scatters" in fit.noise.cautions[0]
    assert "kept apart" in fit.noise.cautions[0]


def test_own_noise_by_hand(plan):
    # The pool (alone, equal/a, equal/b) has seed effects -1 and +1 exactly up to +-0.01; adaptive/a is given
    # 80 - 1 - 3 and 80 + 1 + 3 around them: deviations -3 and +3, variance 18 on one degree of freedom.
    design = Design(plan(["a", "b"], aggregators=["equal", "adaptive"], num_seeds=2))
    values = np.array([79.01, 81.0, 79.0, 81.01, 79.0, 81.0, 76.0, 84.0, 79.0, 81.005])
    fit = Fit(design, values)
    assert [group.label for group in fit.noise.groups[1:]] == ["adaptive/a"]
    assert fit.noise.groups[1].variance == pytest.approx(18.0, rel=0.01)
    assert fit.noise.groups[1].dof == 1


def test_too_few_runs_to_keep_apart_are_a_caution(plan):
    design = Design(plan(["a"], aggregators=[f"g{number}" for number in range(12)], num_seeds=3))
    values = _values(design)
    values[design.arm_of_cell == 5] += np.array([-0.9, 0.0, 0.9])
    fit = Fit(design, values)
    assert len(fit.noise.groups) == 1
    assert any("g4 scatters" in text and "too narrow" in text for text in fit.noise.cautions)


def test_satterthwaite_by_hand(design):
    labels = np.array([design.arms[arm].aggregator for arm in design.arm_of_cell])
    fit = Fit(design, _values(design, sd=np.where(labels == "adaptive", 0.8, 0.2)))
    pool, own = fit.noise.groups
    estimate = fit.estimate([(design.index["adaptive/a"], design.index["equal/a"])])
    # Each mean is over three runs: variance v / 3.
    parts = [(own.variance / 3, own.dof), (pool.variance / 3, pool.dof)]
    total = sum(part for part, _ in parts)
    assert estimate.standard_error == pytest.approx(np.sqrt(total))
    assert estimate.dof == pytest.approx(total**2 / sum(part**2 / dof for part, dof in parts))


def test_a_collapsed_run_does_not_shift_others_through_a_missing_run(plan):
    # equal/a lacks seed 1, so its difference rests on the seed's effect, which plain least squares would also read
    # from the run of equal/c that collapsed there: 70 points over four arms.
    runs = plan(["a", "b", "c"], aggregators=["equal"], num_seeds=3)
    values = np.array([80.0, 80.5, 79.7, 81.1, 81.6, 80.6, 80.9, 81.5, 80.7, 81.0, 11.4, 80.6])
    keep = [i for i, run in enumerate(runs) if not (run.arm == "equal/a" and run.seed == 1)]
    fit = Fit(Design([runs[i] for i in keep]), values[keep])
    assert [group.label for group in fit.noise.groups[1:]] == ["equal/c"]
    assert fit.estimate([(1, 0)]).difference == pytest.approx(1.0, abs=0.2)
