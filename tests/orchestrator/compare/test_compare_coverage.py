"""The intervals hold what they promise, in simulated sweeps whose truth is known."""

import numpy as np
import pytest
from scipy import stats

from orchestrator.compare.decidable import decidable_effect
from orchestrator.compare.design import Design
from orchestrator.compare.fit import Fit
from orchestrator.compare.path_effect import path_effects

SETS = ["kd", "at+kd", "kd+nst", "at+kd+nst", "at+fm+kd+nst"]
AGGREGATORS = ["equal", "adaptive", "logsum", "dwa"]
NOISE, SEED_NOISE, EFFECT = 0.2, 0.15, 0.2


def _simulate(design, *, noise, repetitions, seed):
    """Values of sweeps without any effect: ``[repetition, run]``."""
    random = np.random.default_rng(seed)
    seeds = random.normal(0, SEED_NOISE, (repetitions, len(design.seeds)))[:, design.seed_of_cell]
    return seeds + random.normal(0, 1, (repetitions, len(design.seed_of_cell))) * noise


@pytest.mark.parametrize("num_seeds", [2, 3, 5])
@pytest.mark.parametrize("times_noisier", [1, 3])
def test_path_effects_are_covered(plan, num_seeds, times_noisier):
    design = Design(plan(SETS, aggregators=AGGREGATORS, num_seeds=num_seeds))
    labels = np.array([design.arms[arm].aggregator for arm in design.arm_of_cell])
    noise = np.where(labels == "adaptive", times_noisier * NOISE, NOISE)
    repetitions = 1500
    hits = dict.fromkeys(design.paths, 0)
    for values in _simulate(design, noise=noise, repetitions=repetitions, seed=num_seeds):
        fit = Fit(design, values)
        for path in design.paths:
            low, high = fit.estimate(design.pairs(path)).interval
            hits[path] += low <= 0 <= high
    assert sorted(hits) == ["at", "fm", "kd", "nst"]
    for path, count in hits.items():
        assert 0.93 <= count / repetitions <= 0.97, path


def test_an_unbalanced_sweep_is_covered(plan):
    runs = plan(SETS, aggregators=AGGREGATORS, num_seeds=3)
    design = Design([run for number, run in enumerate(runs) if number % 7])
    repetitions = 1000
    hits = 0
    for values in _simulate(design, noise=NOISE, repetitions=repetitions, seed=11):
        low, high = Fit(design, values).estimate(design.pairs("at")).interval
        hits += low <= 0 <= high
    assert 0.93 <= hits / repetitions <= 0.97


def test_pooling_decides_what_a_t_test_over_two_seeds_cannot(plan):
    design = Design(plan(SETS, aggregators=AGGREGATORS, num_seeds=2))
    contrast = design.contrast(design.pairs("at"))
    values = _simulate(design, noise=NOISE, repetitions=600, seed=3)
    values += EFFECT * (contrast / (contrast**2).sum())[design.arm_of_cell]  # the path effect is EFFECT
    pooled = by_seed = 0
    for row in values:
        estimate = Fit(design, row).estimate(design.pairs("at"))
        pooled += estimate.interval[0] > 0
        differences = [contrast @ row[design.seed_of_cell == seed] for seed in design.seeds]
        by_seed += stats.ttest_1samp(differences, 0).confidence_interval(0.95).low > 0
    assert pooled / 600 > 0.7
    assert by_seed / 600 < 0.25


def test_a_collapsed_arm_does_not_cost_the_others_their_coverage(plan):
    design = Design(plan(SETS, aggregators=AGGREGATORS, num_seeds=3))
    collapsed = design.arm_of_cell == design.index["dwa/at+fm+kd+nst"]
    random = np.random.default_rng(5)
    hits, widths = 0, []
    for values in _simulate(design, noise=NOISE, repetitions=600, seed=5):
        values[collapsed] -= 70 * (random.random(3) < 0.5)
        estimate = Fit(design, values).estimate(design.pairs("at"))
        hits += abs(estimate.difference) <= estimate.half_width
        widths.append(estimate.half_width)
    assert 0.93 <= hits / 600 <= 0.97
    assert np.median(widths) < 0.2


def test_false_verdicts_stay_below_five_percent_over_all_paths(plan):
    design = Design(plan(SETS, aggregators=AGGREGATORS, num_seeds=2))
    wrong = 0
    for values in _simulate(design, noise=NOISE, repetitions=400, seed=8):
        effects = path_effects(Fit(design, values), sign=1, paths=design.paths)
        wrong += any(item.verdict in ("helps", "hurts") for item in effects)
    assert 0.01 < wrong / 400 < 0.07  # four paths at an uncorrected 5% each would be about 0.17


def test_the_decidable_effect_is_decided_in_four_of_five_sweeps(plan):
    runs = plan(["a"], aggregators=["equal", "adaptive"], num_seeds=3)
    design = Design(runs)
    effect = decidable_effect(runs, NOISE)["a"]
    values = _simulate(design, noise=NOISE, repetitions=1500, seed=4)
    values[:, design.arm_of_cell > 0] += effect
    decided = 0
    for row in values:
        (found,) = path_effects(Fit(design, row), sign=1, paths=("a",))
        decided += found.verdict == "helps"
    assert 0.77 <= decided / 1500 <= 0.83
