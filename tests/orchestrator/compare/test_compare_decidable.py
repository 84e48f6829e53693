"""What a design can decide, said before it is run."""

import math

import numpy as np
import pytest
from scipy import stats

from orchestrator.compare import decidable_effect, undecidable_paths
from orchestrator.compare.design import Design
from orchestrator.compare.fit import Fit
from orchestrator.compare.path_effect import path_effects


def test_smallest_effect_against_the_noncentral_t(plan):
    # One path, two arms on three seeds: standard error sd * sqrt(2 / 3) on 2 degrees of freedom. The effect found must
    # be decided with a chance of 80% by SciPy's own noncentral t distribution.
    effect = decidable_effect(plan(["a"], aggregators=["equal"], num_seeds=3), 0.3)["a"]
    noncentrality = effect / (0.3 * math.sqrt(2 / 3))
    power = stats.nct.sf(stats.t.ppf(0.975, 2), 2, noncentrality)
    assert power == pytest.approx(0.8, abs=1e-3)


def test_more_paths_ask_for_more(plan):
    # Holm's first step over two paths tests at 2.5%.
    runs = plan(["a", "b"], aggregators=["equal"], num_seeds=3)
    effect = decidable_effect(runs, 1.0)["a"]
    power = stats.nct.sf(stats.t.ppf(1 - 0.0125, 4), 4, effect / math.sqrt(2 / 3))
    assert power == pytest.approx(0.8, abs=1e-3)


def test_it_scales_with_the_noise_and_shrinks_with_seeds(plan):
    few, many = (plan(["a", "b", "a+b"], aggregators=["equal"], num_seeds=seeds) for seeds in (2, 5))
    assert decidable_effect(few, 2.0)["a"] == pytest.approx(2 * decidable_effect(few, 1.0)["a"])
    assert decidable_effect(many, 1.0)["a"] < 0.6 * decidable_effect(few, 1.0)["a"]


def test_nothing_is_decidable_with_one_seed(plan):
    assert decidable_effect(plan(["a"], aggregators=["equal"], num_seeds=1), 1.0) == {"a": math.inf}


def test_a_path_in_every_set_is_named(plan):
    runs = plan(["kd+a", "kd+b", "kd+a+b"], aggregators=["equal"], num_seeds=3)
    effects = decidable_effect(runs, 1.0)
    assert undecidable_paths(runs) == {"kd": "it is in every path set"}
    assert effects["kd"] == math.inf
    assert 0 < effects["a"] < math.inf


def test_the_noise_must_be_positive(plan):
    with pytest.raises(ValueError, match="noise_sd must be positive, found 0"):
        decidable_effect(plan(["a"], aggregators=["equal"], num_seeds=3), 0)


def test_after_the_sweep_it_is_the_same_with_the_measured_noise(plan):
    runs = plan(["a", "b", "a+b"], aggregators=["equal", "adaptive"], num_seeds=3)
    fit = Fit(Design(runs), np.random.default_rng(0).normal(80, 0.3, len(runs)))
    before = decidable_effect(runs, fit.noise.pooled.sd)
    after = {item.path: item.smallest_decidable for item in path_effects(fit, sign=1, paths=("a", "b"))}
    assert len(fit.noise.groups) == 1
    assert after == pytest.approx(before)
