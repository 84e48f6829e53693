"""From records to the answer: which arms count, what they gain, and what is said."""

import pytest

from orchestrator.compare import compare


def _complete(sweep, *, seeds=3):
    """The student alone, two aggregators and three path sets: ``good`` helps by 2 and ``bad`` hurts by 2."""
    wobble = (0.05, -0.05, 0.0, 0.04, -0.04)
    values = {"": 80.0, "good": 82.0, "bad": 78.0, "bad+good": 80.5}
    for seed in range(seeds):
        lift = (0.0, 1.0, -1.0, 0.5, 2.0)[seed]
        sweep.add("none", "", seed, 80.0 + lift + wobble[seed], test=79.0 + lift)
        for number, label in enumerate(("equal", "adaptive")):
            for position, names in enumerate(("good", "bad", "bad+good")):
                value = values[names] + 0.3 * number + lift + wobble[(seed + number + position) % 5]
                sweep.add(label, names, seed, value, test=value - 1)


def _story(comparison, arm):
    return {runs.arm.name: runs.story for runs in comparison.incomplete}[arm]


def _names(comparison):
    return [summary.runs.arm.name for summary in comparison.arms]


def test_the_answer_of_a_complete_sweep(sweep):
    _complete(sweep)
    answer = compare(sweep.save())
    assert answer.sentences == (
        "Helps: good. Hurts: bad. Undecided: none.",
        "Best arm: adaptive with good, +2.3 points over the student alone (95% interval +2.2 to +2.4, chosen among 6 "
        "arms on validation, so flattering; test 81.3 +- 1.0, teacher 95.0).",
    )
    assert answer.best.runs.arm.name == "adaptive/good"
    assert answer.incomplete == ()
    assert answer.cautions == ()


def test_path_effects_by_hand(sweep):
    # No wobble but on one run, so that the means are exact: good is +2 alone and +3 beside bad, for one aggregator.
    for seed, lift in enumerate((0.0, 1.0, -1.0)):
        sweep.add("none", "", seed, 80.0 + lift + 0.01 * (seed == 0) - 0.01 * (seed == 1))
        for names, value in (("good", 82.0), ("bad", 78.0), ("bad+good", 81.0)):
            sweep.add("equal", names, seed, value + lift)
    good, bad = compare(sweep.save()).paths
    assert (good.path, bad.path) == ("good", "bad")
    assert good.effect.difference == pytest.approx((2.0 + 3.0) / 2)
    assert good.add_one.difference == pytest.approx(2.0)
    assert good.leave_one_out.difference == pytest.approx(3.0)
    assert good.shapley.difference == pytest.approx((2.0 + 3.0) / 2)  # of two paths each order is one of two
    assert bad.effect.difference == pytest.approx((-2.0 - 1.0) / 2)
    assert bad.add_one.difference == pytest.approx(-2.0)
    assert bad.leave_one_out.difference == pytest.approx(-1.0)


def test_gains_are_paired_by_seed(sweep):
    for seed, alone in enumerate((80.0, 85.0)):
        sweep.add("none", "", seed, alone)
        sweep.add("equal", "a", seed, 82.0)
    orphan = sweep.add("equal", "a", 2, 82.0)
    gains = compare(sweep.save()).gains
    assert gains == {
        "alone s0": 0.0,
        "alone s1": 0.0,
        "equal/a s0": pytest.approx(2.0),
        "equal/a s1": pytest.approx(-3.0),
    }
    assert orphan not in gains


def test_stopped_arms_are_listed_and_left_out(sweep):
    _complete(sweep)
    sweep.add("logsum", "good", 0, 99.0)
    for seed in (1, 2):
        sweep.add("logsum", "good", seed, 99.0, status="stopped", epochs=4)
    answer = compare(sweep.save())
    assert "logsum/good" not in _names(answer)
    assert answer.best.runs.arm.name == "adaptive/good"
    assert _story(answer, "logsum/good") == (
        "logsum/good: seed 1 stopped by the scheduler after epoch 4; seed 2 stopped by the scheduler after epoch 4; "
        "left out of the comparison"
    )


def test_an_arm_with_a_failed_run_is_listed_and_left_out(sweep):
    # What is left of such an arm are the seeds that went well.
    _complete(sweep)
    for seed in (0, 1):
        sweep.add("logsum", "good", seed, 99.0)
    sweep.add("logsum", "good", 2, None, status="failed", reason="loss of path good is not finite at step 40")
    answer = compare(sweep.save())
    assert "logsum/good" not in _names(answer)
    assert _story(answer, "logsum/good") == (
        "logsum/good: seed 2 failed: loss of path good is not finite at step 40; left out of the comparison"
    )


def test_a_finished_run_without_a_finite_metric_counts_as_failed(sweep):
    _complete(sweep)
    sweep.add("equal", "good", 1, float("nan"))
    answer = compare(sweep.save())
    assert "seed 1 failed: finished without a finite validation accuracy" in _story(answer, "equal/good")


def test_missing_seeds_are_compared_but_never_the_best(sweep):
    _complete(sweep)
    sweep.add("logsum", "good", 0, 99.0)
    answer = compare(sweep.save())
    assert answer.arms[0].runs.arm.name == "logsum/good"
    assert answer.best.runs.arm.name == "adaptive/good"
    # Seed 0 has no lift, the student alone has 80.05 there and 80 on average: least squares sees 19 over it.
    assert answer.arms[0].over_alone.difference == pytest.approx(19.0, abs=0.1)
    assert _story(answer, "logsum/good") == "logsum/good: no result yet for seed 1, 2"


def test_the_student_alone_stays_with_the_seeds_it_has(sweep):
    _complete(sweep)
    sweep.lines.pop(0)
    sweep.add("none", "", 0, None, status="failed", reason="out of memory")
    answer = compare(sweep.save())
    assert answer.best.over_alone.difference == pytest.approx(2.3, abs=0.1)
    assert _story(answer, "alone") == "alone: seed 0 failed: out of memory"


def test_planned_runs_without_a_record_are_counted(sweep):
    _complete(sweep)
    sweep.details["planned"] = 30
    assert "9 of 30 planned runs have left no record" in compare(sweep.save()).cautions


def test_a_single_seed_decides_nothing(sweep):
    sweep.details["config"] = {"seed": 0}
    _complete(sweep, seeds=1)
    answer = compare(sweep.save())
    assert answer.sentences == (
        "Helps: none. Hurts: none. Undecided: good, bad. (Intervals need at least 2 seeds.)",
        "Best arm: adaptive with good, +2.2 points over the student alone (no interval from a single seed, chosen "
        "among 6 arms on validation, so flattering; test 81.2, teacher 95.0).",
    )
    assert "a single seed: intervals need at least 2 seeds, so everything is undecided" in answer.cautions
    assert answer.gains["adaptive/good s0"] == pytest.approx(2.2)


def test_the_protocol_of_the_paper_ranks_on_test_and_says_so(sweep):
    sweep.details["protocol"] = "paper"
    _complete(sweep)
    answer = compare(sweep.save())
    assert answer.metric.split == "test"
    assert all("TEST" in sentence for sentence in answer.sentences)
    assert "chosen among 6 arms on TEST" in answer.sentences[1]
    assert any("TEST images rank" in caution for caution in answer.cautions)
    assert "TEST (ranks)" in answer.table_text()
    assert "TEST (ranks)" in answer.table_markdown
    # Test accuracy of adaptive/good less the student alone's 79 on the same seeds, by hand: 81.3 - 79.
    assert answer.best.over_alone.difference == pytest.approx(2.3, abs=0.05)


def test_what_seeds_share_and_what_was_rounded_is_said(sweep):
    sweep.details["config"] = {"data_seed": 7, "store": "float16", "search": {"seed": {"grid": [0, 1, 2]}}}
    _complete(sweep)
    cautions = compare(sweep.save()).cautions
    assert any("share the order of the data and its augmentation (data_seed: 7)" in caution for caution in cautions)
    assert any("stored in float16" in caution for caution in cautions)
    sweep.details["config"] = {"data_seed": None, "store": "exact", "search": {"seed": {"grid": [0, 1, 2]}}}
    cautions = compare(sweep.save()).cautions
    assert not any("data_seed" in caution or "float16" in caution for caution in cautions)


def test_a_metric_that_falls_is_ranked_downwards(sweep):
    sweep.details |= {"metric": "val/loss", "mode": "min"}
    for seed in range(3):
        for label, names, loss in (("none", "", 1.0), ("equal", "good", 0.5), ("equal", "bad", 1.5)):
            sweep.add(
                label, names, seed, 80.0, validation={"accuracy": 80.0, "loss": loss + 0.01 * seed * (names == "bad")}
            )
    answer = compare(sweep.save())
    assert answer.sentences[0] == "Helps: good. Hurts: bad. Undecided: none."
    assert answer.best.runs.arm.name == "equal/good"
    assert [summary.is_below for summary in answer.arms] == [False, False, True]


def test_an_unknown_metric_names_the_nearest(sweep):
    sweep.details["metric"] = "val/acuracy"
    _complete(sweep)
    with pytest.raises(ValueError, match=r"'val/acuracy' on its validation images; .*did you mean 'val/accuracy'\?"):
        compare(sweep.save())


def test_a_path_in_every_set_is_not_decidable(sweep):
    for seed in range(2):
        sweep.add("none", "", seed, 80.0 + seed)
        sweep.add("equal", "kd+a", seed, 81.0 + seed)
        sweep.add("equal", "kd+b", seed, 82.0 + 1.1 * seed)
    sweep.details["config"] = {"search": {"seed": {"grid": [0, 1]}}}
    assert compare(sweep.save()).sentences[0] == (
        "Helps: none. Hurts: none. Undecided: none. "
        "Not decidable: a, b (no two arms differ in it alone); kd (it is in every path set)."
    )


def test_no_arm_above_the_student_alone_is_said(sweep):
    for seed in range(3):
        sweep.add("none", "", seed, 80.0 + 0.01 * seed)
        sweep.add("equal", "a", seed, 79.0)
    sentence = compare(sweep.save()).sentences[1]
    assert sentence.startswith("Best arm: equal with a, -1.0 points against the student alone")
    assert "the only arm" in sentence
    assert sentence.endswith("no arm came out above the student alone.")


def test_without_a_student_alone_nothing_is_made_up(sweep):
    for seed in range(2):
        sweep.add("equal", "a", seed, 80.0 + seed)
        sweep.add("equal", "a+b", seed, 82.0 + 1.1 * seed)
    answer = compare(sweep.save())
    assert answer.gains == {}
    assert answer.best.over_alone is None
    assert "no student alone to compare with" in answer.sentences[1]
    assert "no finished run of the student alone: no difference to it can be shown" in answer.cautions


def test_aggregators_against_equal_by_hand(sweep):
    _complete(sweep)
    (effect,) = compare(sweep.save()).aggregators
    assert (effect.aggregator, effect.verdict) == ("adaptive", "better")
    assert effect.effect.difference == pytest.approx(0.3, abs=0.02)
    assert effect.effect.num_pairs == 3


def test_an_experiment_without_a_finished_run_is_empty(sweep):
    sweep.add("equal", "a", 0, None, status="failed", reason="no")
    answer = compare(sweep.save())
    assert answer.arms == ()
    assert answer.best is None
    assert answer.sentences[1] == "Best arm: none, no arm with a path is complete."
    assert answer.paths[0].reason == "no arm with it is complete"


def test_sampled_settings_are_held_against_the_base(sweep):
    for seed in range(2):
        sweep.add("none", "", seed, 80.0 + seed)
        for rate, value in ((0.03, 81.0), (0.07, 82.0)):
            sweep.add("adaptive", "a", seed, value + (1 + rate) * seed, context={"train.optimizer.lr": rate})
    sweep.details["config"] = {"search": {"seed": {"grid": [0, 1]}}}
    answer = compare(sweep.save())
    assert answer.best.over_alone.difference == pytest.approx(2.035)
    assert "adaptive with a (lr=0.07), +2.0 points over the student alone" in answer.sentences[1]
    assert "2 arms have no student alone of their own setting" in " ".join(answer.cautions)
    assert answer.paths[0].verdict == "not decidable"


def test_a_long_path_set_is_named_by_what_it_leaves_out(sweep):
    names = [f"a_path_with_a_long_name_{number}" for number in range(4)]
    for seed in range(2):
        sweep.add("none", "", seed, 80.0 + seed)
        sweep.add("equal", "+".join(names[:3]), seed, 82.1 + 1.02 * seed)
        sweep.add("equal", "+".join(names), seed, 81.0 + seed)
    assert "equal with all paths but a_path_with_a_long_name_3, +2.1 points" in compare(sweep.save()).sentences[1]


@pytest.mark.parametrize(("shares", "named"), [((0.0, 0.0), ""), ((0.0, 0.2), "dist_pro (20 %)")])
def test_arms_that_trained_on_fewer_images_are_a_caution(sweep, shares, named):
    for seed in range(3):
        sweep.add("none", "", seed, 80.0 + seed)
        sweep.add("equal", "a", seed, 81.0 + seed, held_out=shares[0])
        sweep.add("dist_pro", "a", seed, 82.0 + seed**2, held_out=shares[1])
    cautions = [text for text in compare(sweep.save()).cautions if "hold out training images" in text]
    assert [text.rpartition(": ")[2] for text in cautions] == ([named] if named else [])
